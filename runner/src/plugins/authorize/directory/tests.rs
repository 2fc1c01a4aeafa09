//! What becomes of an entry when the directory changes it, falls silent or goes away, on
//! a paused clock. With real processes: `tests/suites/tests/policies/directory.rs`.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod fake;

use futures::future::join_all;
use postern_directory::directory_server::DirectoryServer;
use postern_directory::{Denial, HEARTBEAT, SILENCE, Status as State};
use tokio_util::sync::CancellationToken;

use super::*;
use fake::Fake;

const STALENESS: Duration = Duration::from_secs(300);

/// A directory, and a runner's end of it that watches.
struct Scene {
    fake: Arc<Fake>,
    directory: Arc<Directory>,
    /// Ends the watch with the test.
    _stop: tokio_util::sync::DropGuard,
}

impl Scene {
    async fn new() -> Self {
        let (fake, address) = Fake::serve();
        let directory = Arc::new(Directory::new(address, STALENESS, 1_000));
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&directory).watch(stop.clone()));
        let scene = Self {
            fake,
            directory,
            _stop: stop.drop_guard(),
        };
        scene.until_ready().await;
        scene
    }

    async fn until_ready(&self) {
        while self.directory.ready().is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// As `authorize` looks an entry up.
    async fn look(&self, id: &str) -> Result<Arc<Entry>, Away> {
        match self.directory.cached(id) {
            Some(entry) => Ok(entry),
            None => self.directory.find(id).await,
        }
    }

    async fn state(&self, id: &str) -> Result<Option<State>, Away> {
        Ok(match &self.look(id).await?.value {
            Some(Value::Tenant(tenant)) => Some(tenant.status()),
            Some(Value::Workspace(workspace)) => Some(workspace.status()),
            None => None,
        })
    }

    /// How long it takes until a tenant is seen to be suspended, asking all the time.
    async fn until_suspended(&self, id: &str) -> Duration {
        let began = Instant::now();
        while self.state(id).await != Ok(Some(State::Suspended)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        began.elapsed()
    }
}

fn tenant() -> String {
    TenantId::new().to_string()
}

#[tokio::test(start_paused = true)]
async fn what_is_known_is_not_asked_for_again() {
    let scene = Scene::new().await;
    let id = tenant();
    scene.fake.tenant(&id, State::Active);
    for _ in 0..100 {
        assert_eq!(scene.state(&id).await, Ok(Some(State::Active)));
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(scene.fake.asked(), 1, "an hour and a half of heartbeats");
}

#[tokio::test(start_paused = true)]
async fn a_suspension_is_heard_of_at_once() {
    let scene = Scene::new().await;
    let id = tenant();
    scene.fake.tenant(&id, State::Active);
    scene.state(&id).await.unwrap();
    scene.fake.tenant(&id, State::Suspended);
    let took = scene.until_suspended(&id).await;
    assert!(took < Duration::from_millis(50), "{took:?}");
}

/// The stream is silent and the connection looks alive; another one works.
#[tokio::test(start_paused = true)]
async fn a_suspension_behind_a_silent_stream_is_found_within_two_seconds() {
    // At every phase of the heartbeat.
    for phase in (0..300).step_by(20) {
        let scene = Scene::new().await;
        let id = tenant();
        scene.fake.tenant(&id, State::Active);
        scene.state(&id).await.unwrap();
        tokio::time::sleep(Duration::from_millis(phase)).await;
        scene.fake.swallow();
        scene.fake.tenant(&id, State::Suspended);
        let took = scene.until_suspended(&id).await;
        assert!(took < Duration::from_millis(1_100), "{phase}: {took:?}");
    }
}

/// Questions that were lost with the old connection do not make the directory count as
/// away once the new one stands.
#[tokio::test(start_paused = true)]
async fn nor_do_questions_under_way_hold_it_up() {
    for asked_at in (0..1_000).step_by(50) {
        let scene = Scene::new().await;
        let (known, other) = (tenant(), tenant());
        scene.fake.tenant(&known, State::Active);
        scene.fake.tenant(&other, State::Active);
        scene.state(&known).await.unwrap();
        scene.fake.swallow();
        scene.fake.tenant(&known, State::Suspended);
        let directory = Arc::clone(&scene.directory);
        let question = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(asked_at)).await;
            directory.find(&other).await.map(drop)
        });
        let took = scene.until_suspended(&known).await;
        assert!(took < Duration::from_millis(1_100), "{asked_at}: {took:?}");
        let answered = question.await.unwrap();
        // 500 ms in vain before anybody knew; whoever asks later gets over the new one.
        assert_eq!(answered.is_ok(), asked_at >= 500, "{asked_at}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_directory_is_away_what_is_known_holds_for_so_long() {
    let scene = Scene::new().await;
    let (known, unknown) = (tenant(), tenant());
    for id in [&known, &unknown] {
        scene.fake.tenant(id, State::Active);
    }
    scene.state(&known).await.unwrap();
    // It is old when the directory leaves, and was true all the time.
    tokio::time::sleep(STALENESS * 2).await;
    scene.fake.leave();
    let left = Instant::now();
    let mut slowest = Duration::ZERO;
    while left.elapsed() < STALENESS - HEARTBEAT {
        let began = Instant::now();
        assert_eq!(
            scene.state(&known).await,
            Ok(Some(State::Active)),
            "{:?}",
            left.elapsed()
        );
        slowest = slowest.max(began.elapsed());
        if left.elapsed() > SILENCE * 2 {
            assert_eq!(scene.state(&unknown).await, Err(Away));
        }
        tokio::time::sleep(Duration::from_millis(70)).await;
    }
    assert!(slowest <= ANSWER * 2, "somebody waited {slowest:?}");
    tokio::time::sleep(HEARTBEAT * 2).await;
    assert_eq!(scene.state(&known).await, Err(Away));
    scene.fake.come_back();
    scene.until_ready().await;
    assert_eq!(scene.state(&known).await, Ok(Some(State::Active)));
    assert_eq!(scene.state(&unknown).await, Ok(Some(State::Active)));
}

/// Everybody's entry is as fresh as the last event heard, however often the watch was
/// renewed before and whoever has asked since.
#[tokio::test(start_paused = true)]
async fn a_watch_that_was_renewed_makes_no_entry_older() {
    let scene = Scene::new().await;
    let id = tenant();
    scene.fake.tenant(&id, State::Active);
    scene.state(&id).await.unwrap();
    tokio::time::sleep(STALENESS * 2).await;
    for _ in 0..3 {
        scene.fake.reset();
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    scene.fake.leave();
    tokio::time::sleep(SILENCE * 2).await;
    assert_eq!(scene.state(&id).await, Ok(Some(State::Active)));
    tokio::time::sleep(STALENESS - Duration::from_secs(60)).await;
    assert_eq!(
        scene.state(&id).await,
        Err(Away),
        "it held until the first reset"
    );
}

/// A question is read, then answered late; the change comes in between.
#[tokio::test(start_paused = true)]
async fn an_answer_from_before_a_change_is_not_kept_and_nobody_waits_for_it() {
    let scene = Scene::new().await;
    let id = tenant();
    scene.fake.tenant(&id, State::Active);
    *scene.fake.slow.lock().unwrap() = Duration::from_millis(400);
    let directory = Arc::clone(&scene.directory);
    let early = {
        let id = id.clone();
        tokio::spawn(async move { directory.find(&id).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    scene.fake.tenant(&id, State::Suspended);
    tokio::time::sleep(Duration::from_millis(10)).await;
    *scene.fake.slow.lock().unwrap() = Duration::ZERO;
    let began = Instant::now();
    assert_eq!(scene.state(&id).await, Ok(Some(State::Suspended)));
    assert!(
        began.elapsed() < Duration::from_millis(100),
        "it waited for the early answer"
    );
    let early = early.await.unwrap().unwrap();
    let Some(Value::Tenant(early)) = &early.value else {
        panic!("{early:?}")
    };
    assert_eq!(
        early.status(),
        State::Active,
        "the early answer is an early one"
    );
    for _ in 0..10 {
        assert_eq!(scene.state(&id).await, Ok(Some(State::Suspended)));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        scene.fake.asked(),
        2,
        "the late answer is kept, the early one is not"
    );
}

#[tokio::test(start_paused = true)]
async fn another_keys_change_does_not_cost_an_answer() {
    let scene = Scene::new().await;
    let id = tenant();
    scene.fake.tenant(&id, State::Active);
    *scene.fake.slow.lock().unwrap() = Duration::from_millis(100);
    let directory = Arc::clone(&scene.directory);
    let asked = id.clone();
    let question = tokio::spawn(async move { directory.find(&asked).await.map(drop) });
    for _ in 0..9 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        scene.fake.tenant(&tenant(), State::Active);
    }
    question.await.unwrap().unwrap();
    assert!(scene.directory.cached(&id).is_some());
}

/// The watch tells later than an answer: that is no reason to ask again.
#[tokio::test(start_paused = true)]
async fn a_change_that_an_answer_knows_of_costs_nothing() {
    let scene = Scene::new().await;
    let id = tenant();
    scene.fake.tenant_unheard(&id, State::Active);
    scene.state(&id).await.unwrap();
    scene.fake.tell_late(&id);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(scene.directory.cached(&id).is_some());
    scene.fake.tenant(&id, State::Suspended);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(scene.directory.cached(&id).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_who_ask_the_same_ask_once() {
    let scene = Scene::new().await;
    let (id, workspace) = (tenant(), WorkspaceId::new().to_string());
    scene.fake.tenant(&id, State::Active);
    scene.fake.workspace(&workspace);
    *scene.fake.slow.lock().unwrap() = Duration::from_millis(50);
    let questions = (0..1_000).map(|n| {
        scene
            .directory
            .find(if n % 2 == 0 { &id } else { &workspace })
    });
    assert!(join_all(questions).await.iter().all(Result::is_ok));
    assert_eq!(scene.fake.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_remembered_shortly() {
    let scene = Scene::new().await;
    let id = tenant();
    for _ in 0..10 {
        assert_eq!(scene.state(&id).await, Ok(None));
    }
    assert_eq!(scene.fake.asked(), 1);
    tokio::time::sleep(MISSING).await;
    assert_eq!(scene.state(&id).await, Ok(None));
    assert_eq!(scene.fake.asked(), 2);
    // It is made: nobody waits until it is forgotten that it was not there.
    scene.fake.tenant(&id, State::Active);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(scene.state(&id).await, Ok(Some(State::Active)));
    // What is no id is not asked for at all.
    assert_eq!(scene.state("tnt_x").await, Ok(None));
    assert_eq!(scene.fake.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_gap_and_a_reset_have_everything_asked_for_again() {
    let scene = Scene::new().await;
    let (id, other) = (tenant(), tenant());
    scene.fake.tenant(&id, State::Active);
    scene.state(&id).await.unwrap();
    scene.fake.tenant_unheard(&id, State::Suspended);
    tokio::time::sleep(SILENCE).await;
    assert_eq!(
        scene.state(&id).await,
        Ok(Some(State::Active)),
        "nobody has told"
    );
    scene.fake.tenant(&other, State::Active);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(
        scene.state(&id).await,
        Ok(Some(State::Suspended)),
        "a revision is missing"
    );
    let asked = scene.fake.asked();
    scene.fake.reset();
    tokio::time::sleep(Duration::from_millis(1)).await;
    scene.state(&id).await.unwrap();
    assert_eq!(scene.fake.asked(), asked + 1);
}

/// A directory over TCP, with certificates on both sides.
#[tokio::test]
async fn over_tcp_both_sides_show_who_they_are() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

    let authority = || {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        (pem, Issuer::new(params, key))
    };
    let vouch = |(_, issuer): &(String, Issuer<'static, KeyPair>)| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let signed = params.signed_by(&key, issuer).unwrap();
        (signed.pem(), key.serialize_pem())
    };
    let (handlers, runners, strangers) = (authority(), authority(), authority());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let tls = |name: &str, trusted: &str, (certificate, key): (String, String)| DirectoryTls {
        authority: file(&format!("{name}-ca.pem"), trusted),
        certificate: file(&format!("{name}.pem"), &certificate),
        key: file(&format!("{name}.key"), &key),
    };
    let ours = tls("runner", &handlers.0, vouch(&runners));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let (fake, _) = Fake::serve();
    let id = tenant();
    fake.tenant(&id, State::Active);
    let trusting = Address::parse(&address, Some(&ours)).unwrap();
    let (certificate, key) = vouch(&handlers);
    let serving = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(&runners.0));
    let mut server = Server::builder().tls_config(serving).unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let service = DirectoryServer::from_arc(fake);
    tokio::spawn(server.add_service(service).serve_with_incoming(incoming));

    let ask = async |address| {
        let directory = Arc::new(Directory::new(address, STALENESS, 10));
        directory.find(&id).await.map(|entry| entry.value.is_some())
    };
    assert_eq!(ask(trusting).await, Ok(true));
    for other in [
        tls("stranger", &handlers.0, vouch(&strangers)),
        tls("deceived", &strangers.0, vouch(&runners)),
    ] {
        let address = Address::parse(&address, Some(&other)).unwrap();
        assert_eq!(ask(address).await, Err(Away), "{other:?}");
    }
    let missing = DirectoryTls {
        key: folder.path().join("none"),
        ..ours.clone()
    };
    for (text, tls) in [
        (address.as_str(), None),
        (address.as_str(), Some(&missing)),
        ("http://localhost:1", Some(&ours)),
        ("localhost:1", None),
    ] {
        let error = format!("{:#}", Address::parse(text, tls).unwrap_err());
        assert!(error.contains("plugins.authorize.directory"), "{error}");
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024
}

/// A million workspaces pass by, and as many ids that name nothing.
#[test]
fn memory_is_bounded_by_the_number_of_entries() {
    const CAPACITY: u64 = 50_000;
    const BOUND: u64 = 96 << 20;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _within = runtime.enter();
    let address = Address::parse("unix:/nowhere", None).unwrap();
    let directory = Directory::new(address, STALENESS, CAPACITY);
    let before = resident();
    let mut most = 0;
    for n in 0_u32..1_000_000 {
        let id = WorkspaceId::new().to_string();
        let workspace = Workspace {
            id: id.clone(),
            tenant_id: id.replace("wks_", "tnt_"),
            status: State::Active.into(),
            capabilities: ["postgres", "mongo", "kafka", "functions", "storage"]
                .map(String::from)
                .into(),
        };
        let entry = Some(Answer::Workspace(workspace));
        directory.keep(&id, GetResponse { revision: 1, entry }, Instant::now());
        if n % 10 == 0 {
            directory.keep(
                &format!("{id}x"),
                GetResponse {
                    revision: 1,
                    entry: None,
                },
                Instant::now(),
            );
        }
        if n % 50_000 == 0 {
            most = most.max(resident().saturating_sub(before));
        }
    }
    assert!(directory.known.len() as u64 <= CAPACITY);
    assert!(directory.missing.len() as u64 <= MAX_MISSING);
    println!("{} KiB for {CAPACITY} entries", most / 1024);
    assert!(most < BOUND, "{most} bytes for {CAPACITY} entries");
}

/// The audit trail hears of what it can, and how much it cannot.
#[tokio::test(start_paused = true)]
async fn denials_are_reported_and_the_lost_ones_counted() {
    use crate::plugins::authorize::denials::{self, Denials};
    let scene = Scene::new().await;
    let mut kept = Denials::default();
    let noted = kept.open();
    for n in 0..1_500 {
        kept.push(|| Denial {
            subject: n.to_string(),
            ..Denial::default()
        });
    }
    let stop = CancellationToken::new();
    let reporting = tokio::spawn(denials::report(
        Arc::clone(&scene.directory),
        noted,
        stop.clone(),
    ));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let told = || -> (usize, u64) {
        let reports = scene.fake.reported.lock().unwrap();
        (
            reports.iter().map(|report| report.denials.len()).sum(),
            reports.iter().map(|report| report.dropped).sum(),
        )
    };
    assert_eq!(told(), (1_024, 476));
    // With the process what is left goes out, once.
    kept.push(Denial::default);
    stop.cancel();
    reporting.await.unwrap();
    assert_eq!(told(), (1_025, 476));
}
