//! The script that every client does: which lines are for whom, and what stands for `{w}` and `{t+N}`.

use anyhow::{Context, Result, bail};

/// Times of a turn lie this far apart, ms; no line of the script reaches as far.
const TURN_MS: u64 = 1000;
const T0: u64 = 1_780_000_000_000;

/// Who writes, where, and which round of theirs it is: all of them together are a name and times that nobody else uses.
pub struct Turn<'a> {
    pub client: &'a str,
    pub site: &'a str,
    pub round: usize,
}

pub struct Script {
    lines: Vec<Line>,
}

enum Line {
    /// ACTION REST, as the clients get it.
    Request { action: String, text: String },
    /// Only of clients that know the action, where there is one.
    Expect { action: Option<String>, count: u64, select: String },
}

#[derive(Debug)]
pub struct Expectation {
    pub count: u64,
    pub select: String,
}

impl Script {
    pub fn read(text: &str) -> Result<Self> {
        let is_said = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
        Ok(Self { lines: text.lines().filter(is_said).map(line).collect::<Result<_>>()? })
    }

    /// What a client that knows `actions` is asked for in a turn, in order.
    pub fn requests(&self, turn: &Turn, actions: &[String]) -> Vec<String> {
        let mut requests = Vec::new();
        for line in &self.lines {
            if let Line::Request { action, text } = line
                && actions.contains(action)
            {
                requests.push(turn.fill(text));
            }
        }
        requests
    }

    pub fn expectations(&self, turn: &Turn, actions: &[String]) -> Vec<Expectation> {
        let mut expectations = Vec::new();
        for line in &self.lines {
            if let Line::Expect { action, count, select } = line
                && action.as_ref().is_none_or(|action| actions.contains(action))
            {
                expectations.push(Expectation { count: *count, select: turn.fill(select) });
            }
        }
        expectations
    }
}

fn line(text: &str) -> Result<Line> {
    let (head, rest) = text.split_once(' ').with_context(|| text.to_owned())?;
    match head.split_once(':').unwrap_or((head, "")) {
        ("expect", action) => {
            let (count, select) = rest.split_once(' ').with_context(|| text.to_owned())?;
            let action = (!action.is_empty()).then(|| action.to_owned());
            Ok(Line::Expect { action, count: count.parse().context(text.to_owned())?, select: select.to_owned() })
        }
        (action @ ("sql" | "stmt" | "stmt2" | "line"), "") => {
            Ok(Line::Request { action: action.to_owned(), text: text.to_owned() })
        }
        _ => bail!("script.txt: unknown: {text}"),
    }
}

impl Turn<'_> {
    fn fill(&self, text: &str) -> String {
        let name = format!("{}_{}{}", self.client, self.site, self.round);
        // The name tells clients and sites apart; any number that does so too will do for times.
        let writer: u64 = format!("{}{}", self.client, self.site).bytes().fold(0, |sum, byte| (sum * 31 + u64::from(byte)) % 9973);
        let base = T0 + (writer * 100 + self.round as u64) * TURN_MS;
        let mut filled = text.replace("{w}", &name).replace("{t}", &base.to_string());
        for offset in 0..10 {
            filled = filled.replace(&format!("{{t+{offset}}}"), &(base + offset).to_string());
        }
        filled
    }
}
