use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use pipeline_sdk::context::{Host, Place};
use pipeline_sdk::*;
use pipeline_tdengine::meters::MetersConfig;
#[derive(Default)]
struct H(Mutex<BTreeMap<String, u64>>);
impl Host for H {
    fn counter(&self, n: &str, add: u64) { *self.0.lock().unwrap().entry(n.into()).or_default() += add; }
    fn gauge(&self, _: &str, _: f64) {}
    fn incident(&self, i: &Incident) { eprintln!("{i:?}") }
    fn state_get(&self, _: bool, _: &str) -> Result<Option<Vec<u8>>> { Ok(None) }
    fn state_put(&self, _: bool, _: &str, _: Option<&[u8]>) -> Result<()> { Ok(()) }
    fn state_keys(&self, _: bool, _: &str) -> Result<Vec<String>> { Ok(vec![]) }
    fn is_cancelled(&self) -> bool { false }
}
#[tokio::main]
async fn main() {

    let a: Vec<String> = std::env::args().collect();
    let config: MetersConfig = serde_json::from_value(serde_json::from_str(&a[1]).unwrap()).unwrap();
    let wrong = config.lint();
    if !wrong.is_empty() { for w in wrong { eprintln!("{w}"); } return; }
    let host = Arc::new(H::default());
    let service = config.build(Context::new(Place::default(), host.clone())).unwrap();
    let ((ready, told), (stopper, stop)) = (Ready::channel(), Stop::channel());
    let t = std::time::Instant::now();
    let running = tokio::spawn(service.run(ready, stop));
    if told.await.is_err() { eprintln!("{:?}", running.await.unwrap().unwrap_err()); return; }
    eprintln!("ready after {:?}", t.elapsed());
    tokio::time::sleep(std::time::Duration::from_secs(a[2].parse().unwrap())).await;
    let t = std::time::Instant::now();
    stopper.send_replace(true);
    let r = running.await.unwrap();
    eprintln!("stopped after {:?}: {r:?} {:?}", t.elapsed(), host.0.lock().unwrap());
}
