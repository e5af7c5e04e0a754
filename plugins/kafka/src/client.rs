//! What source and sink share: how a client is set up, what it tells in the background, and what its errors call for.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use pipeline_sdk::{Error, Reaction};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// The last error of a connection, which calls themselves do not tell: they only time out.
#[derive(Default)]
pub struct Background {
    last: Mutex<Option<(Code, String)>>,
}

impl Background {
    pub fn note(&self, error: &KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        if let Some(code) = error.rdkafka_error_code() {
            // What all brokers are down for came just before.
            let mut last = self.last.lock();
            if code != Code::AllBrokersDown || last.is_none() {
                *last = Some((code, reason.to_owned()));
            }
        }
    }

    pub fn take(&self) -> Option<(Code, String)> {
        self.last.lock().take()
    }
}

/// Lines of librdkafka's own log, at the level of details: what matters comes as an error.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    tracing::debug!(?level, facility, message, "librdkafka");
}

/// What the keys of a file say, over `defaults`; `fixed` are what delivery rests on.
pub fn settings(brokers: &str, properties: &BTreeMap<String, String>, defaults: &[(&str, String)], fixed: &[(&str, String)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (key, value) in defaults {
        config.set(*key, value);
    }
    for (key, value) in properties {
        config.set(key, value);
    }
    config.set("bootstrap.servers", brokers);
    for (key, value) in fixed {
        config.set(*key, value);
    }
    config
}

/// What is wrong with brokers and properties.
pub fn lint(brokers: &str, properties: &BTreeMap<String, String>, fixed: &[&str]) -> Vec<Error> {
    let mut problems = Vec::new();
    let is_address = |text: &str| {
        let text = text.trim();
        let port = text.rsplit_once(':').map_or("9092", |(_, port)| port);
        !text.is_empty() && !text.contains("://") && port.parse::<u16>().is_ok()
    };
    if !brokers.split(',').all(is_address) {
        problems.push(Error::fatal("these are no addresses").path("brokers").hint("write `host:9092`, several with commas"));
    }
    for key in properties.keys().filter(|key| fixed.contains(&key.as_str()) || *key == "bootstrap.servers") {
        problems.push(Error::fatal("is set by this plugin").path(format!("properties.{key}")));
    }
    problems
}

/// The error of a client that cannot be made: a property that librdkafka does not know, or a value that it does not take. Values are
/// left out, as they may be passwords.
pub fn refused(error: &KafkaError) -> Error {
    let text = match error {
        KafkaError::ClientConfig(_, description, key, _) => match description.starts_with("No such") {
            true => format!("librdkafka has no property `{key}`"),
            false => format!("property `{key}` does not take this value"),
        },
        other => other.to_string(),
    };
    Error::fatal(text).code("kafka.property").path("properties").hint("librdkafka's CONFIGURATION.md lists properties and their values")
}

/// No broker answered within `waited`.
pub fn unreachable(brokers: &str, waited: Duration, background: &Background) -> Error {
    let why = background.take();
    let (reaction, code) = match &why {
        Some((code, _)) => (reaction(*code), format!("kafka.{code:?}")),
        None => (Reaction::Disconnected, "kafka.connection".into()),
    };
    let reason = why.map_or_else(String::new, |(_, reason)| format!(": {reason}"));
    let error = Error::new(if reaction == Reaction::Rejected { Reaction::Disconnected } else { reaction }, format!("no broker of {brokers} answered within {waited:?}{reason}"));
    match reaction {
        Reaction::Fatal => error.code(code).hint("see whether user, password and `security.protocol` in `properties` are right"),
        _ => error.code(code),
    }
}

/// The reaction to an error of a broker or of the client.
pub fn reaction(code: Code) -> Reaction {
    match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::InvalidRecord | Code::InvalidMessage | Code::InvalidTimestamp => Reaction::Rejected,
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::InvalidGroupId
        | Code::InvalidConfig
        | Code::InvalidArgument
        | Code::UnsupportedVersion
        | Code::UnsupportedCompressionType
        | Code::PolicyViolation => Reaction::Fatal,
        _ => Reaction::Disconnected,
    }
}

/// An error of a call.
pub fn from_kafka(error: &KafkaError) -> Error {
    let Some(code) = error.rdkafka_error_code() else { return Error::disconnected(error.to_string()).code("kafka.client") };
    let made = Error::new(reaction(code), error.to_string()).code(format!("kafka.{code:?}"));
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition => made.hint("make the topic: kafka-topics --create"),
        Code::MessageSizeTooLarge => made.hint("raise `message.max.bytes` in `properties`, and of the topic; or send fewer columns"),
        _ => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_names_its_key_and_no_value() {
        let properties = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let said = |brokers: &str, properties: &BTreeMap<String, String>| lint(brokers, properties, &["group.id"]).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(said("a:1,b", &properties("sasl.password", "x")), Vec::<String>::new());
        for brokers in ["", "a,", "kafka://a", "a:x"] {
            assert!(said(brokers, &BTreeMap::new())[0].starts_with("brokers: "), "{brokers}");
        }
        assert_eq!(said("a", &properties("group.id", "x")), ["properties.group.id: is set by this plugin"]);
        for (key, value) in [("no.such.key", "secret"), ("security.protocol", "secret")] {
            let config = settings("a", &properties(key, value), &[], &[]);
            let error = refused(&config.create_native_config().map(drop).unwrap_err());
            assert!(error.to_string().contains(key) && !error.to_string().contains("secret"), "{error}");
        }
    }
}
