//! Source and sink `kafka` against Apache Kafka, one broker in KRaft mode.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use pipeline_tests::{Process, Scene, binary, free_port};

use crate::rig::{certificates, check_plugin, ends_well, example, ids, program, rows_in, run, run_file, start, stop, wait_for, wait_for_port};

struct Kafka {
    folder: tempfile::TempDir,
    port: u16,
    server: Option<Process>,
}

/// The jars that `tests/brokers/kafka/prepare` fetched.
fn jars() -> PathBuf {
    let folder = binary().parent().and_then(|profile| profile.parent()).expect("the binary is in TARGET/PROFILE").join("kafka");
    assert!(folder.is_dir(), "{} is missing: run `tests/brokers/kafka/prepare TARGET`", folder.display());
    folder
}

fn java(class: &str) -> Command {
    let mut command = Command::new(program("java", &[], "openjdk-17-jdk-headless"));
    // One client or a small broker: quick to start, little memory.
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"]);
    command.arg(format!("{}/*", jars().display())).arg(class);
    command
}

impl Kafka {
    fn start() -> Self {
        Self::start_as("PLAINTEXT", "")
    }

    /// With another protocol for clients, and further properties.
    fn start_as(protocol: &str, more: &str) -> Self {
        let (folder, port, controller) = (tempfile::tempdir().unwrap(), free_port().unwrap(), free_port().unwrap());
        let text = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners={protocol}://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners={protocol}://127.0.0.1:{port}\n\
             inter.broker.listener.name={protocol}\n{more}\n\
             controller.listener.names=CONTROLLER\nlistener.security.protocol.map=CONTROLLER:PLAINTEXT,{protocol}:{protocol}\n\
             log.dirs={}\nnum.partitions=3\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n",
            folder.path().join("data").display()
        );
        std::fs::write(folder.path().join("server.properties"), text).unwrap();
        let mut format = java("kafka.tools.StorageTool");
        run(format.args(["format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"]).arg(folder.path().join("server.properties")));
        let mut kafka = Self { folder, port, server: None };
        kafka.begin();
        kafka
    }

    fn begin(&mut self) {
        let mut command = java("kafka.Kafka");
        command.arg(self.folder.path().join("server.properties"));
        let mut server = Process::spawn(command, &self.folder.path().join("log")).unwrap();
        wait_for_port(self.port, &mut server);
        self.server = Some(server);
    }

    /// kill -9, and a start.
    fn kill_and_start(&mut self) {
        self.server.take().unwrap().kill().unwrap();
        self.begin();
    }

    fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn scene(&self) -> Scene {
        Scene { environment: vec![("KAFKA", self.brokers())], ..Scene::new() }
    }

    /// Messages of a topic as Kafka's own client prints them.
    fn messages(&self, topic: &str, count: usize) -> Vec<String> {
        let mut command = java("org.apache.kafka.tools.consumer.ConsoleConsumer");
        command.args(["--bootstrap-server", &self.brokers(), "--topic", topic, "--from-beginning", "--timeout-ms", "60000", "--max-messages", &count.to_string()]);
        command.args(["--property", "print.key=true", "--property", "print.headers=true", "--property", "print.partition=true"]);
        run(&mut command).lines().map(str::to_owned).collect()
    }

    /// How many messages each partition of a topic has got.
    fn counts(&self, topic: &str) -> Vec<u64> {
        let mut command = java("org.apache.kafka.tools.GetOffsetShell");
        let printed = run(command.args(["--bootstrap-server", &self.brokers(), "--topic", topic]));
        printed.lines().filter_map(|line| line.rsplit(':').next()?.parse().ok()).collect()
    }

    /// Deletes what a partition holds before an offset.
    fn delete_before(&self, topic: &str, partition: usize, offset: u64) {
        let file = self.folder.path().join("delete.json");
        let text = serde_json::json!({ "version": 1, "partitions": [{ "topic": topic, "partition": partition, "offset": offset }] });
        std::fs::write(&file, text.to_string()).unwrap();
        let mut command = java("org.apache.kafka.tools.DeleteRecordsCommand");
        run(command.args(["--bootstrap-server", &self.brokers(), "--offset-json-file"]).arg(file));
    }

    /// Fills a topic with these lines, in their order, in one partition.
    fn fill(&self, topic: &str, lines: &[String]) {
        let scene = self.scene();
        scene.write(&format!("{topic}.in.csv"), format!("payload\n{}", lines.iter().map(|line| format!("\"{}\"\n", line.replace('"', "\"\""))).collect::<String>()));
        let source = format!("{{ type = \"files\", path = \"{topic}.in.csv\" , columns = {{ payload = \"text\" }} }}");
        let (exit, output) = run_file(&scene, "fill.toml", &into(topic, &source, ", key = \"one\", format = \"raw\""), &[]);
        assert_eq!(exit, Some(0), "{output}");
    }
}

fn into(topic: &str, source: &str, more: &str) -> String {
    let settings = "checkpoint-interval = \"300ms\"\nretry-delay-min = \"50ms\"\nretry-delay-max = \"500ms\"\n";
    format!("[pipeline.in]\n{settings}source = {source}\nsink = {{ type = \"kafka\", brokers = \"${{KAFKA}}\", topic = \"{topic}\"{more} }}\n")
}

fn out_of(topic: &str, group: &str, more: &str, sink: &str) -> String {
    let settings = "checkpoint-interval = \"300ms\"\nretry-delay-min = \"50ms\"\nretry-delay-max = \"500ms\"\n";
    format!("[pipeline.out]\n{settings}source = {{ type = \"kafka\", brokers = \"${{KAFKA}}\", topics = [\"{topic}\"], group = \"{group}\"{more} }}\nsink = {sink}\n")
}

fn to_files(path: &str) -> String {
    format!("{{ type = \"files\", name = \"files\", path = \"{path}\" }}")
}

#[test]
fn messages_are_there_as_they_should_be() {
    let kafka = Kafka::start();
    std::thread::scope(|scope| {
        for case in [what_is_written, what_cannot_be_decoded, a_hole, a_group_of_two, what_is_wrong, the_example, conforms] {
            let kafka = &kafka;
            scope.spawn(move || case(kafka));
        }
    });
}

fn what_is_written(kafka: &Kafka) {
    let scene = kafka.scene();
    let source = "{ type = \"generate\", rows = 5000, columns = [{ name = \"id\", type = \"sequence\" }, { name = \"device\", type = \"text\", values = 5 }] }";
    let (exit, output) = run_file(&scene, "in.toml", &into("written", source, ", key = \"{device}\", headers = { kind = \"row\", of = \"{device}\" }"), &[]);
    assert_eq!(exit, Some(0), "{output}");
    let messages = kafka.messages("written", 5000);
    let parts: Vec<Vec<&str>> = messages.iter().map(|line| line.split('\t').collect()).collect();
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for part in &parts {
        let [partition, headers, key, value] = part.as_slice() else { panic!("{part:?}") };
        let value: serde_json::Value = serde_json::from_str(value).unwrap();
        assert_eq!((value["device"].as_str(), headers.to_string()), (Some(*key), format!("kind:row,of:{key}")));
        ids.insert(value["id"].as_u64().unwrap());
        places.insert((key.to_string(), partition.to_string()));
    }
    assert_eq!((ids.len(), places.len()), (5000, 5), "every row, and each device in one partition");
    // Each row to a topic of its own value.
    let source = source.replace("5000", "50");
    assert_eq!(run_file(&scene, "topics.toml", &into("of-{device}", &source, ""), &[]).0, Some(0));
    assert_eq!(kafka.counts("of-device-[0-4]").iter().sum::<u64>(), 50);
}

fn what_cannot_be_decoded(kafka: &Kafka) {
    let scene = kafka.scene();
    let line = |id: u64| format!("{{\"id\":{id},\"v\":{id}}}");
    let lines = [line(1), "torn {".into(), line(2), String::new(), "{\"id\":7,\"v\":{}}".into(), line(3)];
    kafka.fill("odd", &lines);
    let text = out_of("odd", "odd", ", beside = { key = \"key\", topic = \"topic\", time = \"at\" }", &to_files("good.ndjson"));
    let (exit, output) = run_file(&scene, "odd.toml", &text, &[]);
    assert!(exit == Some(3) && output.contains("topic `odd`, partition") && output.contains("offset 1: a payload makes no rows"), "{exit:?} {output}");
    let good = rows_in(scene.folder.path());
    assert!(good.lines().all(|line| line.contains("\"id\":1,\"v\":1,\"key\":\"one\",\"topic\":\"odd\",\"at\":\"20")), "{good}");
}

fn a_hole(kafka: &Kafka) {
    let scene = kafka.scene();
    let lines: Vec<String> = (0..100).map(|id| format!("{{\"id\":{id}}}")).collect();
    kafka.fill("hole", &lines[..50]);
    // The topic's partition of the key `one`: found by its count.
    let counts = kafka.counts("hole");
    assert_eq!(counts.iter().sum::<u64>(), 50);
    let partition = counts.iter().position(|count| *count == 50).expect("one key is one partition");
    let text = |hole: &str| out_of("hole", "hole", hole, &to_files("hole.ndjson"));
    let bounded = |text: &str| run_file(&scene, "hole.toml", text, &["--for", "3s"]);
    let (exit, output) = bounded(&text(""));
    assert_eq!((exit, ids(scene.folder.path()).values().sum()), (Some(0), 50), "{output}");
    kafka.fill("hole", &lines[50..]);
    kafka.delete_before("hole", partition, 70);
    let (exit, output) = bounded(&text(""));
    assert!(exit == Some(3) && output.contains("no longer has messages 50 to 69") && output.contains("on-hole"), "{exit:?} {output}");
    let (exit, output) = bounded(&text(", on-hole = \"continue\""));
    assert_eq!(exit, Some(0), "{output}");
    let found: BTreeSet<i64> = ids(scene.folder.path()).into_keys().collect();
    assert_eq!(found, (0..50).chain(70..100).collect(), "{output}");
}

fn a_group_of_two(kafka: &Kafka) {
    let scenes = [kafka.scene(), kafka.scene()];
    let columns = "columns = [{ name = \"id\", type = \"sequence\" }, { name = \"device\", type = \"text\", values = 50 }]";
    let source = |until: &str| format!("{{ type = \"generate\", {until}, batch-rows = 50, {columns} }}");
    // The first row, once more, makes the topic.
    let (exit, output) = run_file(&scenes[0], "make.toml", &into("shared", &source("rows = 1"), ""), &[]);
    assert_eq!(exit, Some(0), "{output}");
    // It goes on until both have read, however long that takes.
    let writer = start(&scenes[0], "in.toml", &into("shared", &source("rate = 500"), ", key = \"{device}\""), &[]);
    let text = out_of("shared", "shared", "", &to_files("got.ndjson"));
    let first = start(&scenes[0], "out.toml", &text, &[]);
    wait_for("the first reads", || !ids(scenes[0].folder.path()).is_empty(), || first.output());
    let second = start(&scenes[1], "out.toml", &text, &[]);
    wait_for("the second reads as well", || !ids(scenes[1].folder.path()).is_empty(), || second.output());
    stop(writer);
    let written = kafka.counts("shared").iter().sum::<u64>() as usize - 1;
    // The second leaves, and the first goes on with its partitions.
    stop(second);
    let all = || scenes.iter().flat_map(|scene| ids(scene.folder.path()).into_keys()).collect::<BTreeSet<_>>();
    wait_for("every row is there", || all().len() == written, || first.output());
    stop(first);
}

fn what_is_wrong(kafka: &Kafka) {
    let scene = kafka.scene();
    let few = "reconnect-attempts-max = 1\n";
    for (name, text, exit, said) in [
        ("topic", out_of("absent", "g", "", &to_files("x.ndjson")), 1, "topic `absent`"),
        ("name", into("a/b", "{ type = \"generate\", rows = 3 }", ""), 1, "topic"),
        ("gone", out_of("t", "g", ", connect-timeout = \"1s\"", &to_files("x.ndjson")).replace("${KAFKA}", "127.0.0.1:1"), 1, "no broker of 127.0.0.1:1 answered"),
        ("gone-sink", into("t", "{ type = \"generate\", rows = 3 }", ", connect-timeout = \"1s\"").replace("${KAFKA}", "127.0.0.1:1"), 1, "no broker of 127.0.0.1:1 answered"),
        ("property", out_of("t", "g", ", properties = { \"no.such\" = \"1\" }", &to_files("x.ndjson")), 2, "no.such"),
        ("fixed", into("t", "{ type = \"generate\" }", ", properties = { acks = \"1\" }"), 2, "properties.acks"),
        ("address", into("t", "{ type = \"generate\" }", "").replace("${KAFKA}", "kafka://x"), 2, "these are no addresses"),
        ("template", into("t-{", "{ type = \"generate\" }", ""), 2, "a brace has no end"),
        ("group", out_of("t", "", "", &to_files("x.ndjson")), 2, "a consumer group needs a name"),
        ("large", into("large", "{ type = \"generate\", rows = 3 }", ", properties = { \"message.max.bytes\" = \"1000\" }, headers = { x = \"LONG\" }").replace("LONG", &"x".repeat(2000)), 3, "row 0"),
    ] {
        let text = text.replace("retry-delay-min = \"50ms\"\nretry-delay-max = \"500ms\"\n", few);
        let (code, output) = run_file(&scene, &format!("{name}.toml"), &text, &[]);
        assert!(code == Some(exit) && output.contains(said), "{name}: {code:?}\n{output}");
    }
}

fn the_example(kafka: &Kafka) {
    let mut scene = kafka.scene();
    let rows: Vec<String> = (0..500).map(|n| format!("{{\"ts\":\"2026-01-01T00:00:{:02}.{:03}\",\"device\":{},\"location\":\"site {}\",\"current\":{}}}", n / 100, n % 100, n % 7, n % 2, f64::from(n) / 8.0)).collect();
    kafka.fill("meters", &rows);
    let (site, _node) = scene.node("site", "");
    scene.environment.push(("SITE", site.dsn()));
    let run = start(&scene, "p.toml", &example("kafka-to-tdengine.toml"), &[]);
    let count = || site.try_sql("select count(*) from power.meters").ok().and_then(Result::ok).and_then(|rows| rows.first()?.first()?.as_i64());
    wait_for("the rows are there", || count() == Some(500), || run.output());
    stop(run);
}

fn conforms(kafka: &Kafka) {
    let scene = kafka.scene();
    let lines: Vec<String> = (0..600).map(|id| format!("{{\"id\":{id},\"text\":\"{}\"}}", "x".repeat(50))).collect();
    kafka.fill("kit", &lines);
    let brokers = kafka.brokers();
    let passed = check_plugin(
        &scene,
        "kafka",
        &format!(
            "[source.kafka]\nbrokers = \"{brokers}\"\ntopics = [\"kit\"]\ngroup = \"{{name}}\"\nbatch-payloads = 25\nconnect-timeout = \"9s\"\nproperties = {{ \"session.timeout.ms\" = \"6000\" }}\n\
             [sink.kafka]\nbrokers = \"{brokers}\"\ntopic = \"kit-{{name}}\"\nkey = \"one\"\nconnect-timeout = \"5s\"\n\
             [kit.source.kafka]\nunreachable = {{ brokers = \"127.0.0.1:1\" }}\nbad = [{{ brokers = \"\" }}, {{ topics = [] }}, {{ group = \"\" }}]\n\
             [kit.sink.kafka]\nunreachable = {{ brokers = \"127.0.0.1:1\" }}\nbad = [{{ topic = \"\" }}, {{ key = \"{{\" }}]\n\
             observe = {{ source = {{ type = \"kafka\", brokers = \"{brokers}\", topics = [\"kit-{{name}}\"], group = \"{{name}}\", format = \"raw\", columns = {{ payload = \"text\" }} }} }}\n"
        ),
        &[],
    );
    assert!(passed >= 28, "{passed}");
}

#[test]
fn a_connection_is_encrypted_and_certificates_are_checked_at_both_ends() {
    let scene = Scene::new();
    for name in ["site", "other"] {
        certificates(&scene, name);
    }
    scene.write("store.pem", scene.read("site.key") + &scene.read("site.crt"));
    let file = |name: &str| scene.path(name).display().to_string();
    let more = format!(
        "ssl.keystore.type=PEM\nssl.keystore.location={}\nssl.truststore.type=PEM\nssl.truststore.location={}\nssl.client.auth=required",
        file("store.pem"),
        file("site-ca.pem")
    );
    let kafka = Kafka::start_as("SSL", &more);
    let properties = |ca: &str, own: &str| {
        format!(
            ", connect-timeout = \"15s\", properties = {{ \"security.protocol\" = \"SSL\", \"ssl.ca.location\" = \"{}\", \
             \"ssl.certificate.location\" = \"{}\", \"ssl.key.location\" = \"{}\" }}",
            file(ca),
            file(&format!("{own}.crt")),
            file(&format!("{own}.key"))
        )
    };
    let rows = "{ type = \"generate\", rows = 3, columns = [{ name = \"id\", type = \"sequence\" }] }";
    let run = |name: &str, text: String| {
        let text = text.replace("${KAFKA}", &kafka.brokers()).replace("retry-delay-min", "reconnect-attempts-max = 1\nretry-delay-min");
        run_file(&scene, &format!("{name}.toml"), &text, &["--for", "60s"])
    };
    let (exit, output) = run("good", into("secret", rows, &properties("site-ca.pem", "site")));
    assert_eq!(exit, Some(0), "{output}");
    let text = out_of("secret", "g", &properties("site-ca.pem", "site"), &to_files("got.ndjson")).replace("${KAFKA}", &kafka.brokers());
    let reading = start(&scene, "read.toml", &text, &[]);
    wait_for("the rows", || rows_in(scene.folder.path()).lines().filter(|line| line.contains("\"id\"")).count() == 3, || reading.output());
    stop(reading);
    // Both ends say why: an authority that did not sign the broker's certificate, a certificate that the broker does not know.
    for (name, ca, own, said) in [("authority", "other-ca.pem", "site", "ssl.ca.location"), ("stranger", "site-ca.pem", "other", "SSL")] {
        for text in [into("secret", rows, &properties(ca, own)), out_of("secret", "g2", &properties(ca, own), &to_files("none.ndjson"))] {
            let (exit, output) = run(name, text);
            assert!(exit == Some(1) && output.contains("answered within") && output.contains(said), "{name}: {exit:?} {output}");
        }
    }
}

#[test]
fn nothing_is_lost_when_the_broker_or_the_pipeline_is_killed() {
    const ROWS: usize = 20_000;
    let mut kafka = Kafka::start();
    let scene = kafka.scene();
    let columns = "columns = [{ name = \"id\", type = \"sequence\" }, { name = \"device\", type = \"text\", values = 9 }]";
    let source = format!("{{ type = \"generate\", rows = {ROWS}, rate = 4000, batch-rows = 100, {columns} }}");
    let (written, read) = (into("killed", &source, ", key = \"{device}\""), out_of("killed", "killed", "", &to_files("read.ndjson")));
    // The first row, once more, makes the topic.
    assert_eq!(run_file(&scene, "make.toml", &into("killed", &source.replace(&ROWS.to_string(), "1"), ""), &[]).0, Some(0));
    let first = start(&scene, "in.toml", &written, &[]);
    let reader = start(&scene, "out.toml", &read, &[]);
    let count = || ids(scene.folder.path()).len();
    wait_for("rows come", || count() > 1_000, || reader.output());
    kafka.kill_and_start();
    let before = count();
    wait_for("rows come again", || count() > before + 500, || reader.output());
    first.kill().unwrap();
    reader.kill().unwrap();
    let mut writer = start(&scene, "in.toml", &written, &[]);
    let reader = start(&scene, "out.toml", &read, &[]);
    ends_well(&mut writer);
    wait_for("every row is there", || count() == ROWS, || reader.output());
    stop(reader);
}
