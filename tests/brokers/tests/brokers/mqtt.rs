//! MQTT: Mosquitto.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use pipeline_tests::{Process, Scene, free_port};

use crate::rig::{LIMIT, certificates, check_plugin, ci_checks, example, ids, program, rows_in, stop, wait_for, wait_for_ids, wait_for_port};

const INSTALL: &str = "install mosquitto and mosquitto-clients";

struct Mosquitto {
    process: Option<Process>,
    config: PathBuf,
    log: PathBuf,
    port: u16,
}

impl Mosquitto {
    fn start(scene: &Scene, more: &str) -> Self {
        let port = free_port().unwrap();
        let data = scene.path("broker");
        std::fs::create_dir(&data).unwrap();
        // Started by root it would become another user, who could not write here.
        let config = format!(
            "listener {port} 127.0.0.1\npersistence true\npersistence_location {}/\nmax_queued_messages 0\nlog_dest stderr\nlog_type all\nuser root\n{}\n",
            data.display(),
            if more.is_empty() { "allow_anonymous true" } else { more }
        );
        scene.write("mosquitto.conf", &config);
        let mut broker = Self { process: None, config: scene.path("mosquitto.conf"), log: scene.path("mosquitto.log"), port };
        broker.begin();
        broker
    }

    fn begin(&mut self) {
        let mut command = Command::new(program("mosquitto", &[], INSTALL));
        command.arg("-c").arg(&self.config);
        let mut process = Process::spawn(command, &self.log).unwrap();
        wait_for_port(self.port, &mut process);
        self.process = Some(process);
    }

    /// As a service is stopped: it keeps what it holds for sessions.
    fn end(&mut self) {
        self.process.take().unwrap().stop(LIMIT).unwrap();
    }

    fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until so many subscriptions were answered.
    fn wait_for_subscriptions(&self, count: usize, run: &Process) {
        wait_for("a subscription", || self.output().matches("Sending SUBACK").count() >= count, || run.output());
    }

    /// Publishes each line as a message of QoS 1.
    fn publish(&self, arguments: &[&str], lines: &str) {
        let mut child = Command::new(program("mosquitto_pub", &[], INSTALL))
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-q", "1", "-l"])
            .args(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "mosquitto_pub failed");
    }
}

fn rows(from: i64, to: i64) -> String {
    (from..to).map(|id| format!("{{\"id\":{id},\"value\":{}}}\n", id as f64 / 2.0)).collect()
}

#[test]
fn mqtt_nothing_is_lost_whatever_is_killed() {
    let scene = Scene::new();
    let mut broker = Mosquitto::start(&scene, "");
    let file = format!(
        "[pipeline.p]\nretry-delay-max = \"1s\"\ncheckpoint-interval = \"200ms\"\n\
         source = {{ type = \"mqtt\", url = \"mqtt://127.0.0.1:{}\", topics = [\"meters/#\"], client-id = \"test\" }}\n\
         sink = {{ type = \"files\", path = \"out/rows.ndjson\" }}\n",
        broker.port
    );
    scene.write("p.toml", &file);
    let out = scene.path("out");
    let run = scene.start(&["run", "p.toml"], "run.log");
    broker.wait_for_subscriptions(1, &run);
    broker.publish(&["-t", "meters/a"], &rows(0, 2_000));
    wait_for("some rows", || !ids(&out).is_empty(), || run.output());
    // The pipeline is killed, and messages come while it is away.
    run.kill().unwrap();
    broker.publish(&["-t", "meters/b"], &rows(2_000, 3_000));
    let run = scene.start(&["run", "p.toml"], "run.log");
    // The broker vanishes while rows are under way.
    broker.wait_for_subscriptions(2, &run);
    broker.publish(&["-t", "meters/c"], &rows(3_000, 5_000));
    broker.end();
    wait_for("the loss", || run.output().contains("trying again"), || run.output());
    broker.begin();
    broker.publish(&["-t", "meters/d"], &rows(5_000, 6_000));
    let found = wait_for_ids(&out, 6_000, &run);
    stop(run);
    let twice = found.values().filter(|count| **count > 1).count();
    println!("6,000 messages, {twice} of them twice");
    // What is durable is acknowledged: nothing comes again.
    let run = scene.start(&["run", "p.toml"], "run.log");
    let before = ids(&out);
    broker.publish(&["-t", "meters/e"], &rows(6_000, 6_001));
    wait_for_ids(&out, 6_001, &run);
    stop(run);
    let after = ids(&out);
    assert!(before.iter().all(|(id, count)| after[id] == *count), "messages came again after a graceful stop");
}

#[test]
fn mqtt_with_tls_a_login_and_the_older_protocol() {
    let mut scene = Scene::new();
    for name in ["site", "other"] {
        certificates(&scene, name);
    }
    let passwords = scene.path("passwords");
    let made = Command::new(program("mosquitto_passwd", &[], INSTALL)).args(["-b", "-c"]).arg(&passwords).args(["meter", "top secret"]).status();
    assert!(made.unwrap().success());
    let more = format!(
        "allow_anonymous false\nrequire_certificate true\npassword_file {}\ncafile {}\ncertfile {}\nkeyfile {}",
        passwords.display(),
        scene.path("site-ca.pem").display(),
        scene.path("site.crt").display(),
        scene.path("site.key").display()
    );
    let broker = Mosquitto::start(&scene, &more);
    let file = |password: &str| {
        format!(
            "[pipeline.p]\non-error = \"dead-letter\"\ncheckpoint-interval = \"200ms\"\n\
             dead-letter = {{ type = \"files\", name = \"bad\", path = \"bad/rows.ndjson\" }}\n\
             sink = {{ type = \"files\", path = \"out/rows.ndjson\" }}\n\
             [pipeline.p.source]\ntype = \"mqtt\"\nurl = \"mqtts://127.0.0.1:{}\"\nprotocol = \"3.1.1\"\nusername = \"meter\"\npassword = \"{password}\"\n\
             topics = [\"site/{{location}}/{{device}}\"]\ntopic-column = \"topic\"\n\
             tls = {{ ca = \"site-ca.pem\", certificate = \"site.crt\", key = \"site.key\" }}\n",
            broker.port
        )
    };
    scene.environment.push(("MQTT_PASSWORD", "wrong one".into()));
    scene.write("wrong.toml", file("${MQTT_PASSWORD}"));
    let outcome = scene.pipeline(&["run", "wrong.toml"]);
    outcome.expect(1, &["the broker refuses the login"]);
    assert!(!outcome.stderr.contains("wrong one"), "{}", outcome.stderr);
    // An authority that did not sign the broker's certificate; no certificate of one's own; one that the broker does not know.
    let both = ["3.1.1", "5"];
    for (from, to, advice) in [
        ("site-ca.pem", "other-ca.pem", "with `ca`"),
        (", certificate = \"site.crt\", key = \"site.key\"", "", "`tls.certificate`"),
        ("site.crt\", key = \"site", "other.crt\", key = \"other", "`tls.certificate`"),
    ] {
        for protocol in both {
            let text = file("${MQTT_PASSWORD}").replace(from, to).replace("3.1.1", protocol).replace("[pipeline.p]\n", "[pipeline.p]\nretry-delay-min = \"10ms\"\nreconnect-attempts-max = 2\n");
            scene.write("untrusted.toml", text);
            let outcome = scene.pipeline(&["run", "untrusted.toml"]);
            outcome.expect(1, &["mqtt.tls", advice]);
            assert!(!outcome.stderr.contains("wrong one"), "{}", outcome.stderr);
        }
    }

    scene.environment[0].1 = "top secret".into();
    scene.write("p.toml", file("${MQTT_PASSWORD}"));
    let run = scene.start(&["run", "p.toml"], "run.log");
    broker.wait_for_subscriptions(1, &run);
    let [ca, certificate, key] = ["site-ca.pem", "site.crt", "site.key"].map(|name| scene.path(name).display().to_string());
    let login = ["-u", "meter", "-P", "top secret", "--cafile", &ca, "--cert", &certificate, "--key", &key];
    let publish = |topic: &str, lines: &str| broker.publish(&[&login[..], &["-t", topic]].concat(), lines);
    publish("site/hall/d1", "{\"id\":0,\"value\":1}\nno json\n{\"id\":1,\"value\":\"high\"}\n{\"id\":2,\"value\":2.5}\n");
    publish("site/roof/d2", "{\"id\":1,\"value\":3}\n");
    wait_for_ids(&scene.path("out"), 3, &run);
    stop(run);
    let (rows, bad) = (rows_in(&scene.path("out")), rows_in(&scene.path("bad")));
    assert!(rows.contains("\"location\":\"hall\",\"device\":\"d1\",\"topic\":\"site/hall/d1\""), "{rows}");
    assert!(rows.contains("\"id\":1,\"value\":3.0,\"location\":\"roof\",\"device\":\"d2\""), "{rows}");
    assert_eq!(bad.lines().count(), 2, "{bad}");
    assert!(bad.contains("no json") && bad.contains("column `value` is Utf8 here") && bad.contains("site/hall/d1"), "{bad}");
    assert!(!scene.read("run.log").contains("top secret"));
}

#[test]
fn mqtt_into_tdengine() {
    let mut scene = Scene::new();
    let broker = Mosquitto::start(&scene, "");
    let (site, _node) = scene.node("site", "");
    scene.write("p.toml", example("mqtt-to-tdengine.toml"));
    scene.environment.extend([("SITE", site.dsn()), ("BROKER", format!("mqtt://127.0.0.1:{}", broker.port))]);
    let run = scene.start(&["run", "p.toml"], "run.log");
    broker.wait_for_subscriptions(1, &run);
    for device in 0..4 {
        let row = |n: i64| format!("{{\"ts\":{},\"current\":{},\"voltage\":{}}}\n", 1_780_000_000_000 + n, n as f64 / 8.0, 220 + n);
        broker.publish(&["-t", &format!("meters/site {}/{device}", device % 2)], &(0..50).map(row).collect::<String>());
    }
    let count = |sql: &str| site.try_sql(sql).ok().and_then(Result::ok).and_then(|rows| rows.first()?.first()?.as_i64());
    wait_for("200 rows", || count("select count(*) from power.meters") == Some(200), || run.output());
    assert_eq!(count("select count(*) from information_schema.ins_tables where db_name = 'power'"), Some(4));
    assert_eq!(count("select count(*) from power.d_3 where location = 'site 1'"), Some(50));
    stop(run);
}

#[test]
fn mqtt_passes_the_conformance_kit() {
    let scene = Scene::new();
    let broker = Mosquitto::start(&scene, "");
    // What is retained comes to every session that is new: each check has something to read.
    for topic in 0..40 {
        broker.publish(&["-r", "-t", &format!("kit/{topic}")], &rows(topic, topic + 1));
    }
    let kit = format!(
        "[source.mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\ntopics = [\"kit/#\"]\nbatch-payloads = 5\n\
         [kit.source.mqtt]\nunreachable = {{ url = \"mqtt://127.0.0.1:9\" }}\nbad = [{{ url = \"http://h\" }}, {{ topics = [] }}, {{ topics = [\"a/{{}}\"] }}]\n",
        broker.port
    );
    assert!(check_plugin(&scene, "mqtt", &kit, ci_checks()) >= 6);
}
