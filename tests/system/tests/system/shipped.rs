//! Every component that is shipped passes the conformance kit. CI runs the checks that say most; the full tier all of them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use pipeline_tests::{Scene, Site, check_plugin, free_port, is_full_tier};
use serde_json::Value;

/// What every change runs; some take long where a component waits for more.
const CI: [&str; 5] = ["bad-config", "order", "commit-after-durable", "panic", "arrow-types"];
/// In a process of its own as well, in CI.
const ISOLATED: [&str; 2] = ["order", "two-instances"];
const AT_ONCE: usize = 4;

/// A run of the kit: library, component (empty: all), how it is configured, and whether it runs in a process of its own as well.
struct Case {
    library: &'static str,
    component: &'static str,
    config: String,
    is_isolated: bool,
}

fn case(library: &'static str, component: &'static str, config: impl Into<String>) -> Case {
    Case { library, component, config: config.into(), is_isolated: false }
}

/// One format of files, read from what stands in `in` and looked at where it was written.
fn files(format: &str, kit: &str) -> Case {
    let text = format!("[source.files]\npath = \"{{here}}/in/rows*.{format}\"\nbatch-rows = 10\n[sink.files]\npath = \"out.{format}\"\n{kit}");
    case("files", "files", text)
}

fn cases(node: &Site) -> Vec<Case> {
    let basics = "[source.generate]\nrows = 500\nbatch-rows = 20\n[transform.where]\ncondition = \"n >= 0\"\n[transform.route]\nroutes = [{ name = \"first\", when = \"n < 100\" }]\n\
                  [transform.sample]\nfraction = 1.0\n\
                  [transform.delay]\nby = \"1ms\"\n[transform.throttle]\nrows = 1000000\n";
    // Looked at by reading it back: what is flushed gets its name when the sink goes on.
    let columnar = |format: &str| {
        let read = format!("{{ source = {{ type = \"files\", path = \"{{folder}}/*.{format}\", batch-rows = 50000 }} }}");
        let skip = "{ commit-after-durable = \"what was flushed before a kill is read when the sink has gone on behind it\" }";
        format!("[kit.sink.files]\nobserve = {read}\nskip = {skip}\n")
    };
    let (dsn, address) = (node.dsn(), &node.address);
    let tdengine = format!(
        "[source.tdengine-tmq]\ndsn = \"{dsn}\"\ndatabases = [\"src\"]\n\
         [kit.source.tdengine-tmq]\nskip = {{ two-instances = \"consumers of one group divide its lanes: the second waits for them\" }}\n\
         [sink.tdengine]\ndsn = \"{dsn}\"\ndatabase = \"{{name}}\"\nannounce-timeout = \"100ms\"\ntemplate = {{ stable = \"rows\", table = \"t_{{text}}\", tags = [\"text\"] }}\n\
         [kit.sink.tdengine]\nplain = true\nunreachable = {{ dsn = \"ws://root:taosdata@127.0.0.1:9\" }}\n\
         observe = {{ command = [\"curl\", \"-s\", \"-u\", \"root:taosdata\", \"-d\", \"select text from `{{name}}`.`rows` order by ts\", \"http://{address}/rest/sql\"] }}\n\
         skip = {{ batches = \"each row is a table here\", back-pressure = \"each row is a table here\" }}\n\
         [service.tdengine-meters]\ndsn = \"{dsn}\"\ndatabase = \"meters\"\nsite = \"a\"\n"
    );
    let served = format!("[service.tdengine-node]\nlisten = \"127.0.0.1:{}\"\ndata = \"{{folder}}/data\"\n", free_port().unwrap());
    let mut all = vec![
        case("basics", "", basics),
        files("csv", ""),
        files("ndjson", ""),
        files("parquet", &columnar("parquet")),
        files("arrow", &columnar("arrow")),
        case("loop_mark", "", ""),
        case("tdengine", "tdengine-tmq", tdengine.clone()),
        case("tdengine", "tdengine", tdengine.clone()),
        case("tdengine", "tdengine-meters", tdengine),
        case("tdengine_node", "", served),
    ];
    for case in &mut all {
        let is_chosen = case.config.contains("out.csv") || ["loop_mark", "tdengine_node"].contains(&case.library);
        case.is_isolated = is_full_tier() || is_chosen;
    }
    all
}

/// Rows to read: files of each format, and a super table at a node.
fn prepare(scene: &Scene, node: &Site) {
    std::fs::create_dir(scene.path("in")).unwrap();
    for file in 1..4 {
        let rows = |line: &dyn Fn(i32) -> String| (0..40).map(line).collect::<String>();
        scene.write(&format!("in/rows{file}.csv"), format!("id,text\n{}", rows(&|row| format!("{row},row-{file}-{row}\n"))));
        scene.write(&format!("in/rows{file}.ndjson"), rows(&|row| format!("{{\"id\": {row}, \"text\": \"row-{file}-{row}\"}}\n")));
    }
    let convert = |format: &str| {
        let source = "source = { type = \"files\", path = \"in/rows*.csv\" }";
        format!("[pipeline.{format}]\n{source}\nsink = {{ type = \"files\", name = \"out\", path = \"in/rows.{format}\" }}\n")
    };
    scene.write("convert.toml", &(convert("parquet") + &convert("arrow")));
    scene.pipeline(&["run", "convert.toml"]).expect(0, &[]);
    node.sql("create database src vgroups 2 wal_retention_period 3600");
    node.sql("create stable src.m (ts timestamp, n bigint, text varchar(64)) tags (g int)");
    for row in 0..30 {
        let at = 1_780_000_000_000_i64 + row;
        node.sql(&format!("insert into src.t{} using src.m tags ({}) values ({at}, {row}, 'row-{row}')", row % 4, row % 4));
    }
}

/// What failed in a run of the kit.
fn failures(scene: &Scene, case: &Case, isolation: &str, only: &[&str]) -> Vec<String> {
    let mut more = vec!["--isolation", isolation];
    if !case.component.is_empty() {
        more.extend(["--component", case.component]);
    }
    let findings = check_plugin(scene, case.library, &case.config, only, &more);
    assert!(findings.passed() > 0, "{} {}: nothing applies", case.library, case.component);
    let shown = |it: &Value| format!("{isolation} {} {} {}: {} {} {}", case.library, it["component"], it["check"], it["place"], it["reason"], it["log"]);
    findings.failed().into_iter().map(shown).collect()
}

#[test]
fn every_shipped_component_passes_the_kit() {
    let scene = Scene::new();
    let (node, _process) = scene.node("node", "");
    prepare(&scene, &node);
    let cases = cases(&node);
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(index) else { return };
            let (only, isolated): (&[&str], &[&str]) = if is_full_tier() { (&[], &[]) } else { (&CI, &ISOLATED) };
            let mut found = failures(&scene, case, "none", only);
            if case.is_isolated {
                found.extend(failures(&scene, case, "process", isolated));
            }
            failed.lock().unwrap().extend(found);
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
