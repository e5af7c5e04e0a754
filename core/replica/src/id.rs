//! IDs of replicas: short enough to type, and, because consumer groups at the sites carry them, unlikely to be another instance's.

use pipeline_engine::config::problem::closest;

/// Without those that look alike.
const LETTERS: &[u8] = b"abcdefghjkmnpqrstuvwxyz";
const CHARACTERS: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";
const LENGTH: usize = 6;

/// An ID that `is_taken` does not know; `random` gives a new number with each call.
pub fn make_id(mut random: impl FnMut() -> u64, is_taken: impl Fn(&str) -> bool) -> String {
    loop {
        let mut number = random();
        let mut draw = |from: &[u8]| {
            let drawn = from[(number % from.len() as u64) as usize];
            number /= from.len() as u64;
            char::from(drawn)
        };
        let id: String = (0..LENGTH).map(|index| draw(if index == 0 { LETTERS } else { CHARACTERS })).collect();
        if !is_taken(&id) {
            return id;
        }
    }
}

/// What to say to somebody who named what is not there: the name meant, or all there are.
pub fn suggestion<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    const NAMES_MAX: usize = 20;
    let known: Vec<&str> = known.into_iter().collect();
    match (closest(wrong, &known), known.len()) {
        (Some(close), _) => format!("did you mean `{close}`?"),
        (None, 0) => "there is none".into(),
        (None, 1..=NAMES_MAX) => format!("there is: {}", known.join(", ")),
        (None, count) => format!("there is: {} and {} more", known[..NAMES_MAX].join(", "), count - NAMES_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_and_may_be_a_name() {
        let mut numbers = [0, 0, u64::MAX].into_iter();
        let id = make_id(|| numbers.next().unwrap(), |id| id == "aaaaaa");
        assert_eq!(id.len(), LENGTH);
        assert!(id.starts_with(|c: char| c.is_ascii_lowercase()) && id.bytes().all(|c| c.is_ascii_alphanumeric()), "{id}");
        assert_eq!(numbers.next(), None);
    }

    #[test]
    fn what_was_meant_is_suggested() {
        assert_eq!(suggestion("powre", ["power", "water"]), "did you mean `power`?");
        assert_eq!(suggestion("zzz", ["power", "water"]), "there is: power, water");
        assert_eq!(suggestion("zzz", []), "there is none");
    }
}
