//! Three services share the tasks of one folder, each with a copy and a state of its own: one is killed with -9 and one is held
//! still while clients write at both sites. No task is ever in two of them, it moves within seconds, and at the end both sites
//! are equal, nothing loops, and every table grew in its order.
//!
//! Which services, when and in which order comes from a printed seed; `PIPELINE_SEED=N` replays it. On two embedded nodes, or with `PIPELINE_TEST_SITES=HOST:PORT,HOST:PORT` on a real pair; more rounds in the full tier.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pipeline_tests::{Api, Process, Random, Scene, Site, StopAtEnd, drop_topics, free_port, is_full_tier, messages_at, pipelines, wait_for};
use serde_json::{Value, json};

const SERVICES: usize = 3;
const DATABASES: [&str; 4] = ["shared_0", "shared_5", "shared_3", "shared_6"];
const T0: i64 = 1_780_000_000_000;
/// How long tasks may take to be where they belong: a lost member's time, a lease, and a loaded machine.
const MOVE_LIMIT: Duration = Duration::from_secs(120);
/// How long a service may take to end itself.
const ENDS: Duration = Duration::from_secs(60);
/// Longer than a lease.
const STILL: Duration = Duration::from_millis(9_500);

/// Of each log where the test fails.
const LINES_SHOWN: usize = 60;
/// Longer than a row that goes through takes.
const AGAIN: Duration = Duration::from_secs(10);

/// Who had a task since when, and until when, in seconds since the epoch.
type Times = BTreeMap<String, Vec<(usize, f64, f64)>>;

struct Services {
    scene: Scene,
    running: Vec<Option<Process>>,
    /// When each was ended from outside.
    ended: Vec<Vec<f64>>,
    dsn: String,
    name: String,
    /// Where each offers its API over TCP.
    addresses: Vec<String>,
}

/// What a failure leaves: the ends of the logs, which are gone with the scene.
impl Drop for Services {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for (index, running) in self.running.iter_mut().enumerate() {
            let end = running.as_mut().map(|running| if running.is_running() { None } else { running.wait(Duration::from_secs(1)).ok() });
            let log = std::fs::read_to_string(self.scene.path(&format!("{index}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("---- service {index}, which ended: {end:?}\n{}", lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n"));
        }
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock behind 1970").as_secs_f64()
}

impl Services {
    fn new(scene: Scene, a: &Site, b: &Site) -> Self {
        for index in 0..SERVICES {
            std::fs::create_dir(scene.path(&format!("{index}"))).unwrap();
            for database in DATABASES {
                let text = pipelines(a, b, database).replace("a-to-b", &format!("ab-{database}")).replace("b-to-a", &format!("ba-{database}"));
                scene.write(&format!("{index}/{database}.toml"), &text);
            }
        }
        let name = format!("test_{}", std::process::id());
        scene.write("token", "a token of all services");
        let running = (0..SERVICES).map(|_| None).collect();
        let addresses = (0..SERVICES).map(|_| format!("127.0.0.1:{}", free_port().unwrap())).collect();
        Self { scene, running, ended: vec![Vec::new(); SERVICES], dsn: a.dsn(), name, addresses }
    }

    fn api(&self, index: usize) -> Api {
        Api::new(&self.scene.path(&format!("{index}.sock")))
    }

    fn log(&self, index: usize) -> String {
        self.scene.read(&format!("{index}.log"))
    }

    /// What all services told since a moment, in seconds since the epoch.
    fn log_since(&self, moment: f64) -> String {
        let is_since = |line: &&str| line.split_whitespace().next().and_then(seconds_of).is_some_and(|at| at >= moment);
        (0..SERVICES).map(|index| self.log(index).lines().filter(is_since).collect::<Vec<_>>().join("\n")).collect()
    }

    fn start(&mut self, index: usize) {
        let (folder, socket) = (self.scene.path(&index.to_string()).display().to_string(), self.api(index).socket.display().to_string());
        let shares = ["--share", &self.dsn, "--share-name", &self.name];
        let listens = ["--listen", &self.addresses[index], "--token-file", "token"];
        let arguments = [&["serve", "--dir", &folder, "--socket", &socket], &shares[..], &listens[..]].concat();
        self.running[index] = Some(self.scene.start(&arguments, &format!("{index}.log")));
    }

    fn kill(&mut self, index: usize) {
        self.running[index].take().unwrap().kill().unwrap();
        self.ended[index].push(now());
    }

    /// Where each task runs now. No task may be in two services.
    fn places(&self) -> BTreeMap<String, usize> {
        let mut places = BTreeMap::new();
        for index in (0..SERVICES).filter(|index| self.running[*index].is_some()) {
            let Ok((200, tasks)) = self.api(index).try_ask("GET", "/api/v1/tasks", &Value::Null) else { continue };
            for task in tasks.as_array().unwrap().iter().filter(|task| task["status"] == "running") {
                let name = format!("{}/{}", task["pipeline"].as_str().unwrap(), task["value"].as_str().unwrap());
                let before = places.insert(name.clone(), index);
                assert_eq!(before, None, "{name} is in service {index} as well");
            }
        }
        places
    }

    /// Waits until every task runs in one of the services.
    fn until_all_run(&self) -> BTreeMap<String, usize> {
        let deadline = Instant::now() + MOVE_LIMIT;
        loop {
            let places = self.places();
            if places.len() == 2 * DATABASES.len() {
                return places;
            }
            if Instant::now() > deadline {
                let logs: Vec<String> = (0..SERVICES).map(|index| self.log(index)).collect();
                panic!("only {places:?} run within {MOVE_LIMIT:?}:\n{}", logs.join("\n----\n"));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until all tasks run and are shared out: one service may have them all until the others are there.
    fn until_shared_out(&self) -> BTreeMap<String, usize> {
        let deadline = Instant::now() + MOVE_LIMIT;
        loop {
            let places = self.until_all_run();
            if places.values().collect::<BTreeSet<_>>().len() > 1 {
                return places;
            }
            assert!(Instant::now() < deadline, "the tasks are not shared out: {places:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Services that have tasks, two at least, once all tasks run, in an order by chance.
    fn busy(&self, random: &mut Random) -> Vec<usize> {
        let mut busy: Vec<usize> = self.until_shared_out().into_values().collect::<BTreeSet<_>>().into_iter().collect();
        for last in (1..busy.len()).rev() {
            busy.swap(last, random.below(last as u64 + 1) as usize);
        }
        busy
    }

    /// From the logs: who had each task when. A service that was ended had its tasks until then.
    fn times(&self) -> Times {
        let mut times = Times::new();
        for index in 0..SERVICES {
            let mut had: BTreeMap<String, f64> = BTreeMap::new();
            let mut ended = self.ended[index].iter().copied().peekable();
            let mut let_go = |had: &mut BTreeMap<String, f64>, task: &str, at: f64| {
                if let Some(since) = had.remove(task) {
                    times.entry(task.to_owned()).or_default().push((index, since, at));
                }
            };
            for line in self.log(index).lines() {
                let Some(at) = line.split_whitespace().next().and_then(seconds_of) else { continue };
                while let Some(end) = ended.next_if(|end| *end < at) {
                    had.keys().cloned().collect::<Vec<_>>().iter().for_each(|task| let_go(&mut had, task, end));
                }
                let Some(task) = task_of(line) else { continue };
                if line.contains("the task is taken here") {
                    had.insert(task.to_owned(), at);
                } else if line.contains("the task was let go") {
                    let_go(&mut had, task, at);
                }
            }
            let end = ended.next().unwrap_or_else(now);
            had.keys().cloned().collect::<Vec<_>>().iter().for_each(|task| let_go(&mut had, task, end));
        }
        times.values_mut().for_each(|all| all.sort_by(|one, other| one.1.total_cmp(&other.1)));
        times
    }
}

/// Of a log line.
fn task_of(line: &str) -> Option<&str> {
    line.split("task=").nth(1)?.split_whitespace().next()
}

/// Of a log line's first word, in UTC.
fn seconds_of(text: &str) -> Option<f64> {
    let (_, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut parts = time.split(':').map(|part| part.parse::<f64>().ok());
    let of_day = parts.next()?? * 3600.0 + parts.next()?? * 60.0 + parts.next()??;
    let now = now();
    let (midnight, since) = ((now / 86_400.0).floor() * 86_400.0, of_day);
    // A test may run over midnight.
    Some(if midnight + since > now + 3600.0 { midnight + since - 86_400.0 } else { midnight + since })
}

/// Appends rows with a number each, and writes one row over and over.
fn write(site: &Site, name: &str, stop: &AtomicBool, written: &Mutex<BTreeMap<String, i64>>) {
    let mut row = 0;
    while !stop.load(Ordering::Relaxed) {
        for database in DATABASES {
            let sql = format!(
                "insert into {database}.{name} values ({}, {row}) {database}.over_{name} values ({T0}, {row})",
                T0 + row
            );
            // A server that is away for a moment takes the same row later.
            while !matches!(site.try_sql(&sql), Ok(Ok(_))) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            written.lock().unwrap().insert(format!("{database}.{name}"), row);
        }
        row += 1;
        std::thread::sleep(Duration::from_millis(60));
    }
}

/// While it is written, what arrived of a table is the beginning of what was written.
fn watch(site: &Site, name: &str, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for database in DATABASES {
            let Ok(Ok(rows)) = site.try_sql(&format!("select count(*), max(v) from {database}.{name}")) else { continue };
            if let (Some(count), Some(newest)) = (rows[0][0].as_i64(), rows[0][1].as_i64()) {
                assert_eq!(count, newest + 1, "{database}.{name} at {}: rows came in another order", site.address);
            }
        }
        std::thread::sleep(Duration::from_millis(150));
    }
}

fn sites(scene: &Scene) -> ([Site; 2], Vec<Process>) {
    if let Ok(sites) = std::env::var("PIPELINE_TEST_SITES") {
        let (a, b) = sites.split_once(',').expect("PIPELINE_TEST_SITES is HOST:PORT,HOST:PORT");
        return ([Site::new(a), Site::new(b)], Vec::new());
    }
    // A real server lets a lost consumer's lanes go after five seconds (FACTS F42).
    let ((a, first), (b, second)) = (scene.node("a", "member-lost-ms = 5000"), scene.node("b", "member-lost-ms = 5000"));
    ([a, b], vec![first, second])
}

#[test]
fn three_services_share_the_tasks() {
    let mut random = Random::from_environment();
    println!("seed {0} (replay with PIPELINE_SEED={0})", random.seed);
    let scene = Scene::new();
    let ([a, b], _nodes) = sites(&scene);
    for site in [&a, &b] {
        for database in DATABASES {
            drop_topics(site, database);
            site.sql(&format!("drop database if exists {database}"));
            site.sql(&format!("create database {database} vgroups 1 wal_retention_period 3600"));
            for table in ["a", "b", "over_a", "over_b"] {
                site.sql(&format!("create table {database}.{table} (ts timestamp, v bigint)"));
            }
        }
    }
    let mut services = Services::new(scene, &a, &b);
    let begun = Instant::now();
    (0..SERVICES).for_each(|index| services.start(index));
    let places = services.until_shared_out();
    println!("all run, shared out, {:.1} s after the start: {places:?}", begun.elapsed().as_secs_f64());
    let (stop, written) = (AtomicBool::new(false), Mutex::default());
    // Kills, and pauses, by round; in the full tier one after the other, so that each has a time of its own.
    let rounds: &[(bool, bool)] = match is_full_tier() {
        true => &[(true, false), (false, true), (true, false), (false, true), (true, true), (true, true)],
        false => &[(true, true)],
    };
    std::thread::scope(|scope| {
        let (a, b, stop_now, written) = (&a, &b, &stop, &written);
        scope.spawn(move || write(a, "a", stop_now, written));
        scope.spawn(move || write(b, "b", stop_now, written));
        let _end = StopAtEnd(&stop);
        let watching = [scope.spawn(move || watch(b, "a", stop_now)), scope.spawn(move || watch(a, "b", stop_now))];
        for (round, (kills, pauses)) in rounds.iter().enumerate() {
            std::thread::sleep(Duration::from_millis(500) + random.moment(4_000));
            disturb(&mut services, &mut random, round, *kills, *pauses);
        }
        std::thread::sleep(Duration::from_secs(2));
        stop.store(true, Ordering::Relaxed);
        watching.into_iter().for_each(|watching| watching.join().unwrap());
    });
    let written = written.into_inner().unwrap();
    // What was written over while its task moved from a service that was killed is told and not written; written again, it goes through
    // (decision 7).
    settled(&services, &a, &b, &written, || write_over(&a, &b, -1));
    let times = services.times();
    for (task, had) in &times {
        for pair in had.windows(2) {
            assert!(pair[0].2 <= pair[1].1, "{task} was in two services: {had:?}");
        }
    }
    a_service_that_leaves_hands_over(&mut services, &mut random, &a, &b, &written);
    commands_reach_the_service_that_has_a_task(&services);
    orders_reach_all(&services, &a, &b);
    for index in 0..SERVICES {
        assert!(!services.log(index).contains("taosdata"), "a password is in the log of service {index}");
        let status = services.running[index].take().unwrap().stop(Duration::from_secs(60)).unwrap();
        assert!(status.success(), "{}", services.log(index));
    }
}

/// Writes the rows that are written over and over, once more.
fn write_over(a: &Site, b: &Site, value: i64) {
    for (site, name) in [(a, "a"), (b, "b")] {
        DATABASES.iter().for_each(|database| drop(site.sql(&format!("insert into {database}.over_{name} values ({T0}, {value})"))));
    }
}

/// A service is told to end while rows are written over: what comes while its tasks are nobody's is known to be new.
fn a_service_that_leaves_hands_over(
    services: &mut Services,
    random: &mut Random,
    a: &Site,
    b: &Site,
    written: &BTreeMap<String, i64>,
) {
    let leaving = services.busy(random)[0];
    let began = now();
    (0..20).for_each(|value| write_over(a, b, value));
    let status = services.running[leaving].take().unwrap().stop(Duration::from_secs(60)).unwrap();
    services.ended[leaving].push(now());
    assert!(status.success(), "{}", services.log(leaving));
    (100..120).for_each(|value| write_over(a, b, value));
    services.until_all_run();
    settled(services, a, b, written, || {
        // On a machine that is so slow that a lease ran out meanwhile, a task may have moved otherwise as well.
        assert!(services.log_since(began).contains("is_handed_over=false"), "what was handed over was compared");
        write_over(a, b, -2);
    });
    assert!(services.log_since(began).contains("is_handed_over=true"), "the tasks were not handed over");
    services.start(leaving);
    let deadline = Instant::now() + MOVE_LIMIT;
    // It answers before it has read its folder.
    let knows_all = |tasks: &Value| tasks.as_array().is_some_and(|tasks| tasks.len() == 2 * DATABASES.len());
    while !services.api(leaving).try_ask("GET", "/api/v1/tasks", &Value::Null).is_ok_and(|(_, tasks)| knows_all(&tasks)) {
        assert!(Instant::now() < deadline, "{}", services.log(leaving));
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Kills one service that has tasks, holds another still for longer than its lease, and brings both back.
fn disturb(services: &mut Services, random: &mut Random, round: usize, kills: bool, pauses: bool) {
    let busy = services.busy(random);
    let before = services.until_all_run();
    let (killed, paused) = (kills.then(|| busy[0]), pauses.then(|| busy[1]));
    let (is_paused_first, between) = (random.below(2) == 0, random.moment(2_000));
    println!("round {round}: killed {killed:?}, paused {paused:?}, paused first: {is_paused_first}, {between:?} between");
    let moment = now();
    let pause = |services: &Services| {
        if let Some(index) = paused {
            services.running[index].as_ref().unwrap().signal("STOP").unwrap();
        }
    };
    if is_paused_first {
        pause(services);
        std::thread::sleep(between);
    }
    if let Some(index) = killed {
        services.kill(index);
    }
    if !is_paused_first {
        std::thread::sleep(between);
        pause(services);
    }
    if let Some(index) = paused {
        std::thread::sleep(STILL);
        wake(services, index, moment);
    }
    services.until_all_run();
    let times = services.times();
    let gap = |of: usize| {
        let of = before.iter().filter(move |(_, place)| **place == of).filter_map(|(task, _)| times.get(task));
        of.filter_map(|had| had.iter().find(|it| it.1 > moment)).map(|it| it.1 - moment).fold(0.0, f64::max)
    };
    for (what, index) in [("killed", killed), ("paused", paused)].into_iter().filter_map(|(what, index)| Some((what, index?))) {
        println!("round {round}: tasks of the service that was {what} went on {:.1} s later", gap(index));
        if services.running[index].is_none() {
            services.start(index);
        }
    }
    services.until_all_run();
}

/// Lets a service go on that was held still for longer than its lease, some time after `moment`. What it had then may be another's by now:
/// it ends itself, unless it has let go of all of it before it looked.
fn wake(services: &mut Services, index: usize, moment: f64) {
    services.ended[index].push(now());
    let mut woken = services.running[index].take().unwrap();
    let before = services.log(index).len();
    woken.signal("CONT").unwrap();
    if let Ok(status) = woken.wait(ENDS) {
        assert_eq!(status.code(), Some(1), "{}", services.log(index));
        return;
    }
    let log = services.log(index);
    let is_doubt = |line: &&str| line.contains("it is no longer sure that this process has the task");
    let doubted: BTreeSet<&str> = log[before..].lines().filter(is_doubt).filter_map(task_of).collect();
    for (task, had) in services.times() {
        let had_it = had.iter().any(|(place, since, until)| *place == index && *since <= moment && *until > moment);
        assert!(!had_it || doubted.contains(task.as_str()), "it goes on and has not let go of {task}");
    }
    services.running[index] = Some(woken);
}

/// Both sites are equal, hold what was written, and nothing comes from a log while nobody writes. While they differ, `again` is
/// called now and then.
fn settled(services: &Services, a: &Site, b: &Site, written: &BTreeMap<String, i64>, again: impl Fn()) {
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut next = Instant::now() + AGAIN;
    for database in DATABASES {
        loop {
            let difference = match (a.dump(database), b.dump(database)) {
                (Ok(one), Ok(other)) => one.differences(&other),
                (one, other) => vec![format!("{:?} {:?}", one.err(), other.err())],
            };
            if difference.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                let logs: Vec<String> = (0..SERVICES).map(|index| services.log(index)).collect();
                panic!("{database} differs:\n{}\n{}", difference.join("\n"), logs.join("\n----\n"));
            }
            if Instant::now() > next {
                again();
                next = Instant::now() + AGAIN;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    for (table, newest) in written {
        let found = a.sql(&format!("select count(*), max(v) from {table}"));
        assert_eq!((found[0][0].as_i64(), found[0][1].as_i64()), (Some(newest + 1), Some(*newest)), "{table}");
    }
    for site in [a, b] {
        let looped = messages_at(site, DATABASES[0], Duration::from_secs(2)).unwrap();
        assert!(looped.is_empty(), "{} sends while nobody writes: {looped:?}", site.address);
    }
}

/// A service that is asked of a task that another one has says who has it; `ready` asks that one, `restart` reaches it.
fn commands_reach_the_service_that_has_a_task(services: &Services) {
    // Tasks may still move back to a service that was started again.
    let deadline = Instant::now() + MOVE_LIMIT;
    let (database, has, asked, tasks) = loop {
        let (name, has) = services.until_all_run().into_iter().next().unwrap();
        let (asked, database) = ((has + 1) % SERVICES, name.split_once('/').unwrap().1.to_owned());
        let tasks = services.api(asked).get(&format!("/api/v1/tasks?file={database}"));
        if tasks.as_array().unwrap().iter().all(|task| task["service"]["address"] == services.addresses[has].as_str()) {
            break (database, has, asked, tasks);
        }
        assert!(Instant::now() < deadline, "never: it is known that {} has {name}\n{tasks:#}", services.addresses[has]);
        std::thread::sleep(Duration::from_millis(200));
    };
    let (database, path) = (database.as_str(), format!("/api/v1/tasks?file={database}"));
    let process = services.running[has].as_ref().unwrap().id();
    assert!(tasks[0]["service"]["name"].as_str().unwrap().ends_with(&format!("/{process}")), "{tasks}");
    let socket = services.api(asked).socket.display().to_string();
    let command = |verb: &str, more: &[&str]| {
        let arguments = [&["replica", verb, database, "--socket", &socket], more].concat();
        services.scene.pipeline(&arguments)
    };
    let said = command("ready", &[]);
    said.expect(1, &["a fail-over now could lose data"]);
    assert!(said.stdout.contains(&format!("has it: ask it (`--address {}", services.addresses[has])), "{}", said.stdout);
    let token = services.scene.path("token").display().to_string();
    let ready = || command("ready", &["--token-file", &token]);
    wait_for("readiness", MOVE_LIMIT, || ready().exit == Some(0), || ready().stdout);
    let status = command("status", &["--token-file", &token]);
    assert!(status.stdout.contains("running") && status.stdout.contains("in service "), "{}", status.stdout);
    // Wherever it runs by then.
    let began = || {
        let tasks = (0..SERVICES).map(|index| services.api(index).get(&path));
        tasks.filter(|tasks| tasks[0]["status"] == "running").find_map(|tasks| tasks[0]["since"].as_str().map(str::to_owned))
    };
    let until_began_behind = |before: Option<String>| {
        let deadline = Instant::now() + MOVE_LIMIT;
        loop {
            if let Some(found) = began().filter(|found| before.as_ref().is_none_or(|before| found > before)) {
                return found;
            }
            assert!(Instant::now() < deadline, "never: it runs since later than {before:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let before = until_began_behind(None);
    command("restart", &[]).expect(0, &[]);
    until_began_behind(Some(before));
}

/// What one service is told to stop and start stops and starts wherever it is.
fn orders_reach_all(services: &Services, a: &Site, b: &Site) {
    let database = DATABASES[0];
    let is_stopped = |task: &Value| task["status"] == "stopped";
    let order = |index: usize, order: &str| {
        let (status, answer) = services.api(index).ask("POST", &format!("/api/v1/tasks/{order}"), json!({ "file": database }));
        assert_eq!(status, 200, "{answer}");
    };
    let all_tell = |what: &str, is_so: &dyn Fn(&Value) -> bool| {
        for index in 0..SERVICES {
            let path = format!("/api/v1/tasks?file={database}");
            services.api(index).until(&path, what, |tasks| tasks.as_array().unwrap().iter().all(is_so));
        }
    };
    order(0, "stop");
    for index in 0..SERVICES {
        let tasks = services.api(index).get(&format!("/api/v1/tasks?file={database}"));
        assert!(tasks.as_array().unwrap().iter().all(|task| task["status"] != "running"), "a stop is over when all let go: {tasks}");
    }
    all_tell("stopped in every service", &is_stopped);
    let count = || b.sql(&format!("select count(*) from {database}.a"))[0][0].as_i64().unwrap();
    let before = count();
    a.sql(&format!("insert into {database}.a values (now, -1)"));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(count(), before, "nobody replicates what is stopped");
    order(1, "start");
    all_tell("started in every service", &|task| !is_stopped(task));
    let deadline = Instant::now() + MOVE_LIMIT;
    while count() != before + 1 {
        let logs = || (0..SERVICES).map(|index| services.log(index)).collect::<Vec<_>>().join("\n----\n");
        assert!(Instant::now() < deadline, "what was started does not go on:\n{}", logs());
        std::thread::sleep(Duration::from_millis(200));
    }
}
