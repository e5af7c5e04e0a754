//! A queue that is bounded by messages and bytes; a full one makes its writer wait (invariant `bounded`).
//!
//! One writer and one reader. An item that is larger than the whole bound passes when the queue is empty.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::Buffer;

/// What an item counts for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Weight {
    pub messages: u64,
    pub bytes: u64,
    /// Of the messages those that a sink compares when it may have written them before.
    pub compared: u64,
}

impl Weight {
    fn add(&mut self, other: Weight) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.compared += other.compared;
    }

    fn subtract(&mut self, other: Weight) {
        self.messages -= other.messages;
        self.bytes -= other.bytes;
        self.compared -= other.compared;
    }

    fn reaches(self, limit: Weight) -> bool {
        self.messages >= limit.messages || self.bytes >= limit.bytes || self.compared >= limit.compared
    }
}

/// Pushing failed because the reader closed the queue.
#[derive(Debug, PartialEq)]
pub(super) struct Closed;

pub(super) struct Queue<T> {
    limit: Weight,
    state: Mutex<State<T>>,
    filled: Notify,
    emptied: Notify,
    ended: Notify,
}

struct State<T> {
    items: VecDeque<(T, Weight)>,
    held: Weight,
    /// Items that were put in, and up to which of them they were taken out, and what was taken is done with.
    pushed: u64,
    popped: u64,
    done: u64,
    is_closed: bool,
}

impl<T> Queue<T> {
    pub fn new(buffer: &Buffer) -> Self {
        let limit = Weight { messages: u64::from(buffer.messages.max(1)), bytes: buffer.bytes, compared: u64::MAX };
        let state = State { items: VecDeque::new(), held: Weight::default(), pushed: 0, popped: 0, done: 0, is_closed: false };
        Self { limit, state: Mutex::new(state), filled: Notify::new(), emptied: Notify::new(), ended: Notify::new() }
    }

    /// Waits for room.
    pub async fn push(&self, item: T, weight: Weight) -> Result<(), Closed> {
        loop {
            {
                let mut state = self.state.lock();
                if state.is_closed {
                    return Err(Closed);
                }
                let held = state.held;
                let has_room = held.messages + weight.messages <= self.limit.messages
                    && held.bytes + weight.bytes <= self.limit.bytes;
                if has_room || state.items.is_empty() {
                    state.items.push_back((item, weight));
                    state.held.add(weight);
                    state.pushed += 1;
                    drop(state);
                    self.filled.notify_one();
                    return Ok(());
                }
            }
            self.emptied.notified().await;
        }
    }

    /// The next items: as many as are there, until they reach one of the limits. `None` once the queue is closed: what it held is gone.
    pub async fn pop_many(&self, limit: Weight) -> Option<Vec<T>> {
        Some(self.pop_numbered(limit).await?.0)
    }

    /// The same, with the number of the last of them, for [`Queue::note_done`].
    pub async fn pop_numbered(&self, limit: Weight) -> Option<(Vec<T>, u64)> {
        loop {
            {
                let mut state = self.state.lock();
                if state.is_closed {
                    return None;
                }
                if !state.items.is_empty() {
                    let mut taken = Vec::new();
                    let mut sum = Weight::default();
                    while let Some((item, weight)) = state.items.pop_front() {
                        state.held.subtract(weight);
                        sum.add(weight);
                        taken.push(item);
                        if sum.reaches(limit) {
                            break;
                        }
                    }
                    state.popped = state.pushed - state.items.len() as u64;
                    let popped = state.popped;
                    drop(state);
                    self.emptied.notify_one();
                    return Some((taken, popped));
                }
            }
            self.filled.notified().await;
        }
    }

    /// The number of the last item that was put in.
    pub fn pushed(&self) -> u64 {
        self.state.lock().pushed
    }

    /// Whoever takes items out is done with all of them up to this number.
    pub fn note_done(&self, upto: u64) {
        let mut state = self.state.lock();
        state.done = state.done.max(upto);
    }

    /// Whether that was told of this number; or nothing is left of what came up to it, because it was not wanted any more.
    pub fn is_done(&self, upto: u64) -> bool {
        let state = self.state.lock();
        state.done >= upto || (state.done >= state.popped && state.items.is_empty() && !state.is_closed)
    }

    /// Resolves once as much is there as [`Queue::pop_many`] takes at once, or fits into the queue, and when it is closed.
    pub async fn has(&self, limit: Weight) {
        loop {
            {
                let state = self.state.lock();
                if state.is_closed || state.held.reaches(limit) || state.held.reaches(self.limit) {
                    return;
                }
            }
            self.filled.notified().await;
        }
    }

    /// Wakes both sides: nothing goes in or comes out any more.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.items.clear();
        state.held = Weight::default();
        drop(state);
        self.filled.notify_one();
        self.emptied.notify_one();
        self.ended.notify_one();
    }

    /// Resolves once the queue is closed.
    pub async fn closed(&self) {
        loop {
            let changed = self.ended.notified();
            if self.state.lock().is_closed {
                return;
            }
            changed.await;
        }
    }

    /// Takes out what is not wanted any more.
    pub fn retain(&self, is_wanted: impl Fn(&T) -> bool) {
        let mut state = self.state.lock();
        let State { items, held, .. } = &mut *state;
        items.retain(|(item, weight)| {
            let stays = is_wanted(item);
            if !stays {
                held.subtract(*weight);
            }
            stays
        });
        drop(state);
        self.emptied.notify_one();
    }

    pub fn held(&self) -> Weight {
        self.state.lock().held
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    const ALL: Weight = Weight { messages: u64::MAX, bytes: u64::MAX, compared: u64::MAX };

    /// Of 10 and 30 bytes a message is compared.
    fn weight(bytes: u64) -> Weight {
        Weight { messages: 1, bytes, compared: bytes / 10 % 2 }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_at_once_is_bounded() {
        let check = async |messages: u64, bytes: u64, compared: u64, taken: usize| {
            let queue = Queue::new(&Buffer { messages: 9, bytes: 100, ..Buffer::default() });
            for (index, size) in [10, 20, 5, 30].into_iter().enumerate() {
                queue.push(index, weight(size)).await.unwrap();
            }
            let expected: Vec<usize> = (0..taken).collect();
            let limit = Weight { messages, bytes, compared };
            assert_eq!(queue.pop_many(limit).await.unwrap(), expected, "{limit:?}");
        };
        check(1, 100, 9, 1).await;
        check(3, 100, 9, 3).await;
        check(9, 1, 9, 1).await;
        check(9, 30, 9, 2).await;
        check(9, 31, 9, 3).await;
        check(9, 100, 1, 1).await;
        check(9, 100, 2, 4).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_can_wait_until_there_is_as_much_as_it_takes() {
        let queue = Queue::new(&Buffer { messages: 3, bytes: 100, ..Buffer::default() });
        let has = async |messages: u64, bytes: u64| {
            tokio::time::timeout(Duration::from_secs(1), queue.has(Weight { messages, bytes, ..ALL })).await.is_ok()
        };
        queue.push(1, weight(10)).await.unwrap();
        assert!(!has(2, 50).await);
        queue.push(2, weight(20)).await.unwrap();
        assert!(has(2, 50).await && has(9, 30).await && !has(9, 50).await);
        // No more fits.
        queue.push(3, weight(5)).await.unwrap();
        assert!(has(9, 50).await);
        assert_eq!(queue.pop_many(ALL).await.unwrap(), [1, 2, 3]);
        queue.close();
        assert!(has(9, 50).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_makes_its_writer_wait() {
        let check = async |messages: u32, bytes: u64, items: &[u64], fit: usize| {
            let queue = Arc::new(Queue::new(&Buffer { messages, bytes, ..Buffer::default() }));
            for (index, size) in items.iter().enumerate() {
                let pushed = tokio::time::timeout(Duration::from_secs(1), queue.push(index, weight(*size))).await;
                assert_eq!(pushed.is_ok(), index < fit, "item {index} of {items:?}");
                if pushed.is_err() {
                    break;
                }
            }
            assert_eq!(queue.pop_many(ALL).await.unwrap(), (0..fit).collect::<Vec<_>>());
            assert_eq!(queue.held(), Weight::default());
        };
        check(2, 100, &[1, 1, 1], 2).await;
        check(9, 100, &[60, 40, 1], 2).await;
        check(9, 100, &[500, 1], 1).await;
    }

    #[tokio::test(start_paused = true)]
    async fn closing_wakes_both_sides() {
        let queue = Arc::new(Queue::new(&Buffer { messages: 1, bytes: 1, ..Buffer::default() }));
        queue.push(1, weight(1)).await.unwrap();
        let writer = tokio::spawn({
            let queue = queue.clone();
            async move { queue.push(2, weight(1)).await }
        });
        tokio::task::yield_now().await;
        queue.close();
        assert_eq!(writer.await.unwrap(), Err(Closed));
        assert_eq!(queue.pop_many(ALL).await, None);
    }
}
