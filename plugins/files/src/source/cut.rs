//! Text to blocks of whole lines, each with its place.
//!
//! Where a block ends depends on where it begins, and on nothing else: as many lines as a message holds, or as many as fit into a
//! block's bytes, whichever is less. So a finite file is cut the same way whenever it is read on from the end of a block. A line ends
//! where a row does: what stands in quotes in CSV does not end one.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use bytes::Bytes;
use memchr::{memchr, memchr_iter, memchr3, memrchr};
use pipeline_sdk::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(super) enum Input {
    File(File),
    /// A pipe or a terminal: who reads it waits for whoever writes to it.
    Stream(File),
}

impl Input {
    /// Standard input, read without a buffer of its own.
    ///
    /// # Errors
    /// It is closed.
    pub fn standard() -> io::Result<Self> {
        let owned = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Self::Stream(File::from(owned)))
    }

    /// Fills `to` as far as that takes no waiting but for the first byte; how much was read, nothing at the end.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < to.len() && (filled == 0 || self.is_ready()) {
            let (Self::File(file) | Self::Stream(file)) = &mut *self;
            match file.read(&mut to[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Whether a read returns at once.
    pub fn is_ready(&self) -> bool {
        match self {
            Self::File(_) => true,
            // An error is one of the read.
            Self::Stream(file) => poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&Timespec::default())).is_ok_and(|ready| ready > 0),
        }
    }
}

/// How lines end.
#[derive(Clone, Copy)]
pub(super) enum Syntax {
    /// At each end of a line.
    Ndjson,
    /// Outside quotes, which begin behind this delimiter.
    Csv(u8),
}

#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Of a block.
    pub lines: usize,
    /// Of a block; a longer line is a block by itself.
    pub bytes: usize,
    pub line_bytes: usize,
}

/// Whole lines of a text.
pub(super) struct Block {
    pub bytes: Bytes,
    /// Where it begins.
    pub at: u64,
    /// Rows in it at most.
    pub lines: usize,
    /// Ends of lines before it, from where reading began.
    pub lines_before: u64,
    /// It ends where the input does, within a line.
    pub is_torn: bool,
}

pub(super) struct Cutter {
    input: Input,
    name: String,
    syntax: Syntax,
    limits: Limits,
    /// More may be appended.
    grows: bool,
    /// Read and not cut yet.
    rest: Bytes,
    /// Where the rest begins.
    at: u64,
    lines_before: u64,
    /// Whole lines at the start of the rest: bytes and count.
    whole: (usize, usize),
    is_ended: bool,
}

impl Cutter {
    /// Cuts from byte `at` on, where the input stands; `read` was read of it before.
    pub fn new(input: Input, name: &str, syntax: Syntax, limits: Limits, grows: bool, at: u64, read: Vec<u8>) -> Self {
        let (name, rest) = (name.to_owned(), Bytes::from(read));
        Self { input, name, syntax, limits, grows, rest, at, lines_before: 0, whole: (0, 0), is_ended: false }
    }

    /// The next block; `None` where there is none now, or none any more. Of a stream it waits for a line.
    ///
    /// # Errors
    /// Rejected: a line that is too long, or ends within quotes. Disconnected: the input cannot be read.
    pub fn cut(&mut self) -> Result<Option<Block>> {
        self.cut_where(true)
    }

    /// The next block, as far as there is one without waiting.
    ///
    /// # Errors
    /// As of [`Self::cut`].
    pub fn cut_ready(&mut self) -> Result<Option<Block>> {
        self.cut_where(false)
    }

    fn cut_where(&mut self, may_wait: bool) -> Result<Option<Block>> {
        loop {
            let is_full = self.look();
            // Rows do not wait for whoever writes to a stream.
            if is_full || (self.whole.0 > 0 && !self.input.is_ready()) {
                return Ok(Some(self.take(self.whole.0, false)));
            }
            if !self.is_ended && !may_wait && !self.input.is_ready() {
                return Ok(None);
            }
            if self.is_ended || !self.fill()? {
                break;
            }
        }
        if self.grows {
            if self.whole.0 > 0 {
                return Ok(Some(self.take(self.whole.0, false)));
            }
            // Where many files are waited for, a chunk each is too much.
            self.rest = Bytes::copy_from_slice(&self.rest);
            return Ok(None);
        }
        self.is_ended = true;
        self.last()
    }

    /// Leaves the line out that names the columns, and a byte order mark.
    ///
    /// # Errors
    /// As of [`Self::cut`].
    pub fn skip_start(&mut self, has_header: bool) -> Result<()> {
        let limits = self.limits;
        self.limits.lines = 1;
        while self.rest.len() < BYTE_ORDER_MARK.len() && !self.is_ended && self.fill()? {}
        if self.rest.starts_with(BYTE_ORDER_MARK) {
            self.take(BYTE_ORDER_MARK.len(), false);
        }
        if has_header {
            self.cut()?;
        }
        self.limits = limits;
        Ok(())
    }

    /// Where it was cut to.
    #[cfg(test)]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The file, where it is one.
    pub fn file(&mut self) -> Option<&mut File> {
        match &mut self.input {
            Input::File(file) => Some(file),
            Input::Stream(_) => None,
        }
    }

    /// Finds whole lines in the rest; whether they are a block, whatever comes.
    fn look(&mut self) -> bool {
        if let Some(whole) = self.look_at_once() {
            self.whole = whole;
            return true;
        }
        let (mut end, mut lines) = self.whole;
        // A line that is longer than a block is looked for in all of the rest.
        while lines < self.limits.lines && (end < self.limits.bytes || end == 0) {
            let Some(length) = self.syntax.line(&self.rest[end..]) else { break };
            if end > 0 && end + length > self.limits.bytes {
                self.whole = (end, lines);
                return true;
            }
            (end, lines) = (end + length, lines + 1);
        }
        self.whole = (end, lines);
        lines >= self.limits.lines || (end > 0 && self.rest.len() >= self.limits.bytes)
    }

    /// A whole block, where its bytes are what ends it and every end of a line is one: the same block, without a look at each line.
    fn look_at_once(&self) -> Option<(usize, usize)> {
        let Syntax::Ndjson = self.syntax else { return None };
        let bytes = self.rest.get(..self.limits.bytes)?;
        let bytes = &bytes[..memrchr(b'\n', bytes)? + 1];
        let lines = memchr_iter(b'\n', bytes).count();
        (lines <= self.limits.lines).then_some((bytes.len(), lines))
    }

    /// Reads on; whether there was anything.
    fn fill(&mut self) -> Result<bool> {
        let before = self.rest.len();
        if before >= self.limits.line_bytes.max(self.limits.bytes) {
            let error = Error::rejected(format!("{}: the line at byte {} is longer than {before} bytes", self.name, self.at));
            return Err(error.code("files.line").hint("raise `line-bytes-max`, or see whether a quote is missing"));
        }
        let wanted = if before < self.limits.bytes { self.limits.bytes - before } else { before };
        let failed = |error: std::io::Error| Error::disconnected(format!("{}: {error}", self.name)).code("files.read");
        let mut chunk = Vec::new();
        match &mut self.input {
            Input::File(file) => {
                let left = file.metadata().map_err(failed)?.len().saturating_sub(self.at + before as u64);
                let wanted = wanted.min(usize::try_from(left).unwrap_or(usize::MAX));
                if wanted > 0 {
                    // One byte more: the read that finds nothing does not make room for more.
                    chunk.reserve_exact(before + wanted + 1);
                    chunk.extend_from_slice(&self.rest);
                    Read::by_ref(file).take(wanted as u64).read_to_end(&mut chunk).map_err(failed)?;
                }
            }
            Input::Stream(_) => {
                chunk.resize(before + wanted, 0);
                chunk[..before].copy_from_slice(&self.rest);
                let read = self.input.read(&mut chunk[before..]).map_err(failed)?;
                chunk.truncate(before + read);
            }
        }
        if chunk.len() <= before {
            return Ok(false);
        }
        self.rest = Bytes::from(chunk);
        Ok(true)
    }

    /// What is left of a finite input: its last line may do without an end.
    fn last(&mut self) -> Result<Option<Block>> {
        let tail = &self.rest[self.whole.0..];
        if tail.is_empty() {
            return Ok((self.whole.0 > 0).then(|| self.take(self.whole.0, false)));
        }
        if self.syntax.is_within_quotes(tail) {
            // Whole lines before it come first.
            if self.whole.0 > 0 {
                return Ok(Some(self.take(self.whole.0, false)));
            }
            let error = Error::rejected(format!("{}: a quote in the row at byte {} has no end", self.name, self.at)).code("files.content");
            return Err(error.hint("correct the row; where its end is cut off: it is still being written (`follow = true` waits for its end), or lost"));
        }
        self.whole.1 += 1;
        Ok(Some(self.take(self.rest.len(), true)))
    }

    fn take(&mut self, bytes: usize, is_torn: bool) -> Block {
        let block = Block { bytes: self.rest.split_to(bytes), at: self.at, lines: self.whole.1, lines_before: self.lines_before, is_torn };
        self.at += bytes as u64;
        self.lines_before += match self.syntax {
            Syntax::Ndjson => block.lines - usize::from(is_torn),
            Syntax::Csv(_) => memchr_iter(b'\n', &block.bytes).count(),
        } as u64;
        self.whole = (0, 0);
        block
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl Syntax {
    /// The length of the first line with its end; `None` where it has none.
    pub fn line(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Ndjson => memchr(b'\n', bytes).map(|at| at + 1),
            Self::Csv(delimiter) => csv_line(bytes, delimiter).ok(),
        }
    }

    /// Whether what has no end of a line has none because of a quote.
    pub fn is_within_quotes(self, bytes: &[u8]) -> bool {
        matches!(self, Self::Csv(delimiter) if csv_line(bytes, delimiter) == Err(Open::Quote))
    }
}

#[derive(PartialEq)]
enum Open {
    Line,
    Quote,
}

/// The length of the first row with its end, which is `\n`, `\r\n` or `\r`.
fn csv_line(bytes: &[u8], delimiter: u8) -> std::result::Result<usize, Open> {
    let mut at = 0;
    loop {
        at += memchr3(b'\n', b'\r', b'"', &bytes[at..]).ok_or(Open::Line)? + 1;
        match bytes[at - 1] {
            b'\n' => return Ok(at),
            b'\r' => {
                // Behind the last byte that was read may be the other half of the end.
                let next = *bytes.get(at).ok_or(Open::Line)?;
                return Ok(if next == b'\n' { at + 1 } else { at });
            }
            // A quote within a value is a character of it.
            _ if at > 1 && bytes[at - 2] != delimiter => {}
            _ => loop {
                at += memchr(b'"', &bytes[at..]).ok_or(Open::Quote)? + 1;
                // Two are one within the value; which of both it is, the next byte tells.
                if *bytes.get(at).ok_or(Open::Line)? != b'"' {
                    break;
                }
                at += 1;
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::*;

    /// Blocks from byte `at` on, each with its place.
    fn blocks(text: &[u8], syntax: Syntax, limits: Limits, grows: bool, at: u64) -> Result<Vec<(u64, String)>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        let mut cutter = Cutter::new(Input::File(file), "t", syntax, limits, grows, at, Vec::new());
        let mut found = Vec::new();
        while let Some(block) = cutter.cut()? {
            assert_eq!(block.lines_before, text[at as usize..block.at as usize].iter().filter(|byte| **byte == b'\n').count() as u64);
            found.push((block.at, String::from_utf8(block.bytes.to_vec()).unwrap()));
        }
        assert_eq!(cutter.at(), found.last().map_or(at, |(at, text)| at + text.len() as u64));
        Ok(found)
    }

    #[test]
    fn blocks_end_where_rows_do_and_at_the_same_places_whenever_they_are_cut() {
        let csv = "1,a\n2,\"b\nb\"\r\n\n3,\"\"\"c\"\"\n\"\"\"\n4,5\" 6\"\n\"7\n\",x\r8,\"\"\n9,y";
        let rows = ["1,a\n", "2,\"b\nb\"\r\n", "\n", "3,\"\"\"c\"\"\n\"\"\"\n", "4,5\" 6\"\n", "\"7\n\",x\r", "8,\"\"\n", "9,y"];
        let ends: Vec<u64> = rows.iter().scan(0, |at, row| { *at += row.len() as u64; Some(*at) }).collect();
        let ndjson = "{\"a\":\"\\\"\"}\n\n{}\r\n{\"b\":1}\n{}";
        for (text, syntax) in [(csv, Syntax::Csv(b',')), (ndjson, Syntax::Ndjson)] {
            for bytes in 1..text.len() + 2 {
                for lines in 1..4 {
                    let limits = Limits { lines, bytes, line_bytes: 100 };
                    let all = blocks(text.as_bytes(), syntax, limits, false, 0).unwrap();
                    assert_eq!(all.iter().map(|(_, text)| text.as_str()).collect::<String>(), text);
                    for (index, (at, block)) in all.iter().enumerate() {
                        let end = at + block.len() as u64;
                        assert!(matches!(syntax, Syntax::Ndjson) || ends.contains(&end), "{bytes} {lines}: {block:?}");
                        assert!(block.len() <= bytes || syntax.line(block.as_bytes()).is_none_or(|it| it == block.len()), "{bytes}: {block:?}");
                        assert_eq!(blocks(text.as_bytes(), syntax, limits, false, *at).unwrap(), all[index..], "{bytes} {lines} from {at}");
                    }
                }
            }
            // What grows is cut to its last whole line; behind `\r` the other half of its end may come.
            let limits = Limits { lines: 100, bytes: 1_000, line_bytes: 1_000 };
            for length in 0..=text.len() {
                let found = blocks(&text.as_bytes()[..length], syntax, limits, true, 0).unwrap();
                let cut: usize = found.iter().map(|(_, text)| text.len()).sum();
                let whole = match syntax {
                    Syntax::Csv(_) => ends[..7].iter().map(|end| *end as usize).filter(|end| *end < length || (*end == length && text.as_bytes()[end - 1] == b'\n')).max().unwrap_or(0),
                    Syntax::Ndjson => text[..length].rfind('\n').map_or(0, |at| at + 1),
                };
                assert_eq!(cut, whole, "{length}");
            }
        }
    }

    #[test]
    fn a_stream_is_cut_to_full_blocks_while_more_is_there_and_to_lines_where_its_writer_is_slow() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let limits = Limits { lines: 100, bytes: 10, line_bytes: 100 };
        let mut cutter = Cutter::new(Input::Stream(File::from(std::os::fd::OwnedFd::from(reader))), "t", Syntax::Ndjson, limits, false, 0, Vec::new());
        let text = |block: Option<Block>| block.map(|block| String::from_utf8(block.bytes.to_vec()).unwrap());
        assert_eq!(text(cutter.cut_ready().unwrap()), None);
        writer.write_all(b"1\n2\n3\n4\n5\n6\n7").unwrap();
        assert_eq!(text(cutter.cut_ready().unwrap()).as_deref(), Some("1\n2\n3\n4\n5\n"));
        assert_eq!(text(cutter.cut().unwrap()).as_deref(), Some("6\n"));
        // Half a line makes nobody wait who has something else to do.
        assert_eq!(text(cutter.cut_ready().unwrap()), None);
        let late = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            writer.write_all(b"77\n8").unwrap();
            // Closed later: the end is no line.
            writer
        });
        assert_eq!(text(cutter.cut().unwrap()).as_deref(), Some("777\n"));
        drop(late.join().unwrap());
        let last = cutter.cut_ready().unwrap().unwrap();
        assert_eq!((last.at, last.is_torn, text(Some(last)).as_deref()), (16, true, Some("8")));
        assert_eq!(text(cutter.cut().unwrap()), None);
    }

    #[test]
    fn lines_without_an_end_are_told_with_their_place() {
        let limits = Limits { lines: 10, bytes: 4, line_bytes: 8 };
        let error = blocks(b"1\n2\n3456789012345\n", Syntax::Ndjson, limits, false, 0).unwrap_err();
        assert!(error.to_string().contains("line at byte 4 is longer than 8 bytes"), "{error}");
        let error = blocks(b"1,2\n3,\"4\n5,6", Syntax::Csv(b','), Limits { line_bytes: 100, ..limits }, false, 0).unwrap_err();
        assert!(error.to_string().contains("a quote in the row at byte 4 has no end"), "{error}");
    }

    #[test]
    fn a_header_and_a_byte_order_mark_are_left_out() {
        for (text, has_header, at) in [("\u{feff}a,\"b\nc\"\n1,2\n", true, 11), ("\u{feff}1,2\n", false, 3), ("1,2\n", false, 0), ("a", true, 1)] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.rewind().unwrap();
            let limits = Limits { lines: 10, bytes: 1 << 10, line_bytes: 1 << 10 };
            let mut cutter = Cutter::new(Input::File(file), "t", Syntax::Csv(b','), limits, false, 0, Vec::new());
            cutter.skip_start(has_header).unwrap();
            assert_eq!(cutter.at(), at, "{text:?}");
        }
    }
}
