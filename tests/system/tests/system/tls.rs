//! TLS: sites behind a proxy that speaks it, and the admin API over TCP. Who is not trusted is not talked to.

use std::process::Command;
use std::time::{Duration, Instant};

use pipeline_tests::{Process, Scene, Site, free_port};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

const LIMIT: Duration = Duration::from_secs(90);
/// A proxy that cannot have its port has ended by then.
const SETTLE: Duration = Duration::from_millis(300);

/// Writes `NAME-ca.pem`, and a certificate for 127.0.0.1 that it signed: `NAME.crt`, `NAME.key`, and both in `NAME.pem`.
fn certificates(scene: &Scene, name: &str) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    scene.write(&format!("{name}-ca.pem"), authority.pem());
    scene.write(&format!("{name}.crt"), certificate.pem());
    scene.write(&format!("{name}.key"), key.serialize_pem());
    scene.write(&format!("{name}.pem"), &(certificate.pem() + &key.serialize_pem()));
}

/// HAProxy in front of a node, as `wss://`.
fn with_tls(scene: &Scene, name: &str, site: &Site) -> (String, Process) {
    let deadline = Instant::now() + LIMIT;
    // Another test may take the port between the look for a free one and the start.
    loop {
        let port = free_port().unwrap();
        let mut proxy = start_proxy(scene, name, site, port);
        while proxy.is_running() && std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "{}", proxy.output());
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(SETTLE);
        if proxy.is_running() {
            return (format!("wss://127.0.0.1:{port}"), proxy);
        }
        assert!(Instant::now() < deadline, "{}", proxy.output());
    }
}

fn start_proxy(scene: &Scene, name: &str, site: &Site, port: u16) -> Process {
    let crt = scene.path("site.pem");
    let configuration = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         listen site\n  bind 127.0.0.1:{port} ssl crt {}\n  server node {}\n",
        crt.display(),
        site.address
    );
    scene.write(&format!("{name}.cfg"), &configuration);
    let mut command = Command::new("haproxy");
    command.arg("-f").arg(scene.path(&format!("{name}.cfg"))).arg("-db");
    Process::spawn(command, &scene.path(&format!("{name}.haproxy.log"))).expect("haproxy is needed: install it")
}

#[test]
fn sites_and_the_service_speak_tls_with_those_they_trust() {
    let scene = Scene::new();
    let ((a, _first), (b, _second)) = (scene.node("a", ""), scene.node("b", ""));
    certificates(&scene, "site");
    certificates(&scene, "service");
    let (path, text) = (|name: &str| scene.path(name).display().to_string(), |name: &str| scene.read(name));
    let ((wss_a, _proxy_a), (wss_b, _proxy_b)) = (with_tls(&scene, "proxy-a", &a), with_tls(&scene, "proxy-b", &b));
    a.sql("create database power vgroups 1");
    a.sql("create table power.t (ts timestamp, v int)");
    a.sql("insert into power.t values (1780000000000, 7)");

    // A site that this machine does not trust, then with its authority.
    let (untrusted, ca) = (["-f", &wss_a, "-t", &wss_b, "power"], path("site-ca.pem"));
    let outcome = scene.pipeline(&[&["replica", "plan"], &untrusted[..]].concat());
    outcome.expect(1, &["cannot be trusted", "caFile="]);
    let nowhere = path("nowhere.pem");
    for (ca, code, why) in [(&*nowhere, 1, "nowhere.pem cannot be used for TLS"), ("ca.pem", 2, "caFile wants an absolute path")] {
        let wrong = format!("{wss_a}?caFile={ca}");
        scene.pipeline(&["replica", "plan", "-f", &wrong, "-t", &wss_b, "power"]).expect(code, &[why]);
    }

    // The service.
    std::fs::create_dir(scene.path("files")).unwrap();
    scene.write("token", "s3cret\n");
    scene.write("other", "guess\n");
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    let (files, token, socket, certificate, key) = (path("files"), path("token"), path("p.sock"), path("service.crt"), path("service.key"));
    let serve = ["serve", "--dir", &files, "--socket", &socket, "--listen", &address, "--token-file", &token];
    scene.pipeline(&[&serve[..], &["--tls-cert", &token, "--tls-key", &key]].concat()).expect(2, &["token cannot be used for TLS"]);
    let mut service = scene.start(&[&serve[..], &["--tls-cert", &certificate, "--tls-key", &key]].concat(), "serve.log");
    service.wait_for("serving", LIMIT).unwrap();

    let (https, service_ca) = (format!("https://{address}"), path("service-ca.pem"));
    let asked = |verb: &[&str], address: &str, token: &str, more: &[&str]| {
        let token = path(token);
        scene.pipeline(&[&["replica"], verb, &["--address", address, "--token-file", &token], more].concat())
    };
    let trusted = ["--ca-file", service_ca.as_str()];
    let (from, to) = (format!("{wss_a}?caFile={ca}"), format!("{wss_b}?caFile={ca}"));
    asked(&["start", "--both", "-f", &from, "-t", &to, "power"], &https, "token", &trusted).expect(0, &[]);
    let deadline = Instant::now() + LIMIT;
    let arrived = || matches!(b.try_sql("select count(*) from power.t").unwrap(), Ok(rows) if rows[0][0] == 1);
    while !arrived() {
        assert!(Instant::now() < deadline, "{}", text("serve.log"));
        std::thread::sleep(Duration::from_millis(50));
    }
    // The way back waited until the way there had made the database.
    let running = || {
        let status = asked(&["status", "--json"], &https, "token", &trusted);
        status.expect(0, &[]).stdout.matches("\"status\": \"running\"").count()
    };
    while running() != 2 {
        assert!(Instant::now() < deadline, "{}", text("serve.log"));
        std::thread::sleep(Duration::from_millis(100));
    }

    // Wrong in every way that it can be.
    asked(&["status"], &https, "other", &trusted).expect(1, &["the token is missing or wrong"]);
    asked(&["status"], &https, "token", &[]).expect(1, &["no TLS with https://127.0.0.1", "--ca-file"]);
    asked(&["status"], &address, "token", &[]).expect(1, &["does not answer as it should"]);
    asked(&["status"], &address, "token", &trusted).expect(2, &["is not encrypted", "https://HOST:PORT"]);
    asked(&["status"], "ftp://x", "token", &[]).expect(2, &["no address of a service"]);
    assert_eq!(scene.pipeline(&["replica", "status", "--address", &https]).exit, Some(2));

    // A renewed certificate is taken without a restart.
    certificates(&scene, "renewed");
    for kind in ["crt", "key"] {
        std::fs::rename(scene.path(&format!("renewed.{kind}")), scene.path(&format!("service.{kind}"))).unwrap();
    }
    asked(&["status"], &https, "token", &trusted).expect(1, &["no TLS"]);
    asked(&["status"], &https, "token", &["--ca-file", &path("renewed-ca.pem")]).expect(0, &[]);
    assert!(service.stop(LIMIT).unwrap().success(), "{}", text("serve.log"));
}
