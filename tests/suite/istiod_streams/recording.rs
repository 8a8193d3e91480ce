//! A recorded stream, and a server that plays it to a proxy: everything in its order, nothing before it is asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use harness::{ScriptedStream, Value};
use prost::Message as _;
use prost_types::Any;
use xds::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
use xds::snapshot::Entry;
use xds::type_url::ResourceType;
use xds::wire::{Request, Response};

/// What istiod sent to one proxy in one variant of the protocol.
#[derive(Debug)]
pub(super) struct Recording {
    /// Who the proxy was.
    pub(super) node: Value,
    /// By the change that was applied; those before the first one come first.
    pub(super) phases: Vec<(String, VecDeque<Response>)>,
}

/// By which name and type a resource is known.
pub(super) type Resources = BTreeMap<(ResourceType, String), Any>;

impl Recording {
    /// That of the node in `folder`; `variant` is `sotw` or `delta`.
    pub(super) fn read(folder: &Path, variant: &str) -> Self {
        let node = std::fs::read_to_string(folder.join("node.json")).unwrap();
        let folder = folder.join(variant);
        let trace = std::fs::read_to_string(folder.join("trace.txt")).unwrap();
        let mut phases = vec![("start".to_owned(), VecDeque::new())];
        for line in trace.lines() {
            if let Some(change) = line.strip_prefix("==== change applied: ") {
                phases.push((change.trim_end_matches(" ====").to_owned(), VecDeque::new()));
            }
            // What is repeated has no file; names are nobody's business but the agent's.
            let file = line.split_once(" -> ").and_then(|(_, rest)| rest.split_once(".pb="));
            if let Some((file, _)) = file.filter(|(file, _)| !file.ends_with("nds")) {
                let bytes = std::fs::read(folder.join(format!("{file}.pb"))).unwrap();
                let response = match variant {
                    "sotw" => Response::Sotw(DiscoveryResponse::decode(&*bytes).unwrap()),
                    _ => Response::Delta(DeltaDiscoveryResponse::decode(&*bytes).unwrap()),
                };
                phases.last_mut().unwrap().1.push_back(response);
            }
        }
        Self { node: serde_json_of(&node), phases }
    }

    /// Every resource in it.
    pub(super) fn resources(&self) -> impl Iterator<Item = &Any> {
        self.phases.iter().flat_map(|(_, responses)| responses).flat_map(bodies)
    }

    /// With the secrets that another one was sent at first.
    pub(super) fn take_secrets_of(&mut self, other: Self) {
        let (_, beginning) = other.phases.into_iter().next().unwrap();
        let secrets = beginning.into_iter().filter(|it| kind(it) == ResourceType::Secret);
        self.phases[0].1.extend(secrets);
    }

    /// With other resources in place of those that were sent; `change` may leave one out. What says nothing then is
    /// not sent.
    pub(super) fn changed(mut self, change: impl Fn(Any) -> Option<Any>) -> Self {
        for (_, responses) in &mut self.phases {
            responses.retain_mut(|response| {
                let before = bodies(response).len();
                match response {
                    Response::Sotw(it) => {
                        it.resources = std::mem::take(&mut it.resources)
                            .into_iter()
                            .filter_map(&change)
                            .collect();
                    }
                    Response::Delta(it) => it.resources.retain_mut(|it| {
                        it.resource = it.resource.take().and_then(&change);
                        it.resource.is_some()
                    }),
                }
                before == 0 || !bodies(response).is_empty()
            });
        }
        self
    }

    /// What a proxy has in the end, of what it was sent.
    pub(super) fn outcome(&self) -> Resources {
        let mut all = Resources::new();
        for response in self.phases.iter().flat_map(|(_, responses)| responses) {
            let kind = kind(response);
            if matches!(response, Response::Sotw(_)) && kind.is_full_state() {
                all.retain(|(it, _), _| *it != kind);
            }
            if let Response::Delta(it) = response {
                for name in &it.removed_resources {
                    all.remove(&(kind, name.clone()));
                }
            }
            for body in bodies(response) {
                all.insert((kind, name(body)), body.clone());
            }
        }
        all
    }
}

fn serde_json_of(text: &str) -> Value {
    text.parse().unwrap()
}

fn kind(response: &Response) -> ResourceType {
    ResourceType::of(response.type_url()).unwrap()
}

fn bodies(response: &Response) -> Vec<&Any> {
    match response {
        Response::Sotw(it) => it.resources.iter().collect(),
        Response::Delta(it) => it.resources.iter().filter_map(|it| it.resource.as_ref()).collect(),
    }
}

fn name(body: &Any) -> String {
    Entry::new(body.clone()).unwrap().name().to_string()
}

/// Plays responses on a stream.
pub(super) struct Player {
    stream: ScriptedStream,
    /// What was asked for so far.
    asked: BTreeMap<ResourceType, BTreeSet<String>>,
    /// What the first request said of who asks.
    pub(super) node: Value,
}

impl Player {
    /// On a stream that was just opened.
    pub(super) async fn on(mut stream: ScriptedStream) -> Self {
        let first = stream.any_request().await;
        let node = xds::json::to_json(first.node().unwrap());
        let mut player = Self { stream, asked: BTreeMap::new(), node };
        player.note(&first);
        player
    }

    /// Sends `responses`, each as soon as everything in it is asked for, and sees each of them accepted.
    pub(super) async fn play(&mut self, mut responses: VecDeque<Response>) {
        while !responses.is_empty() {
            match responses.iter().position(|response| self.is_asked_for(response)) {
                Some(at) => self.send(responses.remove(at).unwrap()).await,
                None => {
                    let waiting: Vec<_> =
                        responses.iter().map(|it| (kind(it), it.nonce())).collect();
                    let request = self.stream.request_within(harness::PATIENCE).await;
                    let request = request.unwrap_or_else(|| panic!("not asked for: {waiting:?}"));
                    self.note(&request);
                }
            }
        }
    }

    /// Sends `responses` as they come, and sees each of them accepted.
    pub(super) async fn push(&mut self, responses: VecDeque<Response>) {
        for response in responses {
            self.send(response).await;
        }
    }

    async fn send(&mut self, response: Response) {
        let (kind, nonce) = (kind(&response), response.nonce().to_owned());
        self.stream.say(response);
        loop {
            let request = self.stream.any_request().await;
            self.note(&request);
            if request.nonce() == nonce {
                let error = request.error_detail().map(|status| &status.message);
                assert_eq!(error, None, "{kind} {nonce} is refused");
                return;
            }
        }
    }

    fn is_asked_for(&self, response: &Response) -> bool {
        let kind = kind(response);
        let Some(asked) = self.asked.get(&kind) else { return false };
        kind.has_wildcard() || bodies(response).into_iter().all(|body| asked.contains(&name(body)))
    }

    fn note(&mut self, request: &Request) {
        let kind = ResourceType::of(request.type_url()).unwrap();
        let asked = self.asked.entry(kind).or_default();
        match request {
            Request::Sotw(request) => *asked = request.resource_names.iter().cloned().collect(),
            Request::Delta(request) => {
                for name in &request.resource_names_unsubscribe {
                    asked.remove(name);
                }
                asked.extend(request.resource_names_subscribe.iter().cloned());
            }
        }
    }
}
