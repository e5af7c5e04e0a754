//! Threads that make rows of blocks, and the order in which their rows are handed out.
//!
//! Who needs the rows of a block makes them itself where no thread has begun with it, and where one has, makes those of the next
//! meanwhile: so nothing waits for a thread, and where there is one block only, none is started.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use arrow::array::RecordBatch;
use parking_lot::{Condvar, Mutex};

use super::cut::Block;
use super::rows::{Shape, Wrong};

/// Of one source.
pub(super) struct Threads {
    shared: Arc<Shared>,
    /// Beside the one that reads.
    count_max: usize,
    running: Mutex<Vec<JoinHandle<()>>>,
    ahead_bytes_max: u64,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    /// Of blocks whose rows were not handed out yet.
    ahead_bytes: AtomicU64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Arc<Order>>,
    is_closed: bool,
}

/// A block whose rows are wanted.
struct Order {
    block: Block,
    shape: Arc<Shape>,
    state: Mutex<State>,
    done: Condvar,
}

enum State {
    Waiting,
    Begun,
    Done(Result<RecordBatch, Wrong>),
}

/// The claim to the rows of a block.
pub(super) struct Ticket {
    order: Arc<Order>,
    shared: Arc<Shared>,
}

impl Threads {
    /// `threads` at a time, the one that reads counted.
    pub fn new(threads: usize, ahead_bytes_max: u64) -> Self {
        Self { shared: Arc::default(), count_max: threads.saturating_sub(1), running: Mutex::default(), ahead_bytes_max }
    }

    /// Whether a reader that has so many blocks ahead may have one more: one that is worked on and one that waits for each thread and for
    /// itself, as far as the bytes of all readers allow.
    pub fn has_room(&self, ahead: usize) -> bool {
        self.count_max > 0 && ahead < 2 * (self.count_max + 1) && self.shared.ahead_bytes.load(Ordering::Relaxed) < self.ahead_bytes_max
    }

    pub fn order(&self, block: Block, shape: &Arc<Shape>) -> Ticket {
        self.shared.ahead_bytes.fetch_add(block.bytes.len() as u64, Ordering::Relaxed);
        let order = Arc::new(Order { block, shape: shape.clone(), state: Mutex::new(State::Waiting), done: Condvar::new() });
        if self.count_max > 0 {
            let mut queue = self.shared.queue.lock();
            queue.waiting.retain(|order| matches!(*order.state.lock(), State::Waiting));
            let is_behind = !queue.waiting.is_empty();
            queue.waiting.push_back(order.clone());
            drop(queue);
            if is_behind {
                self.start();
            }
            self.shared.filled.notify_one();
        }
        Ticket { order, shared: self.shared.clone() }
    }

    /// One more thread, where there may be one.
    fn start(&self) {
        let mut running = self.running.lock();
        if running.len() >= self.count_max {
            return;
        }
        let shared = self.shared.clone();
        match std::thread::Builder::new().name("files-rows".into()).spawn(move || shared.work()) {
            Ok(thread) => running.push(thread),
            // The one that reads makes the rows.
            Err(error) => tracing::warn!(%error, "no thread can be started"),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.queue.lock().is_closed = true;
        self.shared.filled.notify_all();
        for thread in self.running.get_mut().drain(..) {
            // It caught what its rows panicked with.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let order = {
                let mut queue = self.queue.lock();
                loop {
                    if queue.is_closed {
                        return;
                    }
                    if let Some(order) = queue.waiting.pop_front() {
                        break order;
                    }
                    self.filled.wait(&mut queue);
                }
            };
            order.carry_out();
        }
    }
}

impl Order {
    /// Makes the rows, where nobody has begun with it.
    fn carry_out(&self) {
        {
            let mut state = self.state.lock();
            if !matches!(*state, State::Waiting) {
                return;
            }
            *state = State::Begun;
        }
        let rows = catch_unwind(AssertUnwindSafe(|| self.shape.rows(&self.block)));
        let panicked = |_| Err(Wrong { lines_before: 0, is_last: false, text: "from there on: making rows panicked".into() });
        *self.state.lock() = State::Done(rows.unwrap_or_else(panicked));
        self.done.notify_one();
    }

    fn is_done(&self) -> bool {
        matches!(*self.state.lock(), State::Done(_))
    }
}

impl Ticket {
    pub fn block(&self) -> &Block {
        &self.order.block
    }

    /// The rows of the block. While a thread makes them, those of blocks that wait are made here.
    pub fn rows(&self) -> Result<RecordBatch, Wrong> {
        let mut next = Some(self.order.clone());
        while let Some(order) = next {
            order.carry_out();
            next = if self.order.is_done() { None } else { self.shared.queue.lock().waiting.pop_front() };
        }
        let mut state = self.order.state.lock();
        loop {
            match &*state {
                State::Done(rows) => return rows.clone(),
                _ => self.order.done.wait(&mut state),
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.ahead_bytes.fetch_sub(self.order.block.bytes.len() as u64, Ordering::Relaxed);
        // Nobody wants the rows any more.
        let mut state = self.order.state.lock();
        if matches!(*state, State::Waiting) {
            *state = State::Begun;
        }
    }
}
