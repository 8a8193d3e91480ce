//! What the control plane tells of itself over HTTP.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use xds::type_url::Variant;

use crate::plane::{Plane, cluster, node, service};
use crate::sidecar::Sidecar;

/// The status and the body of an answer.
pub(crate) async fn get(http: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(http).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {http}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

pub(crate) async fn json(http: SocketAddr, path: &str) -> Value {
    let (status, body) = get(http, path).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn it_is_ready_once_there_is_a_mesh() {
    let plane = Plane::start().await;
    assert_eq!(get(plane.http, "/healthz").await.0, 200);
    assert_eq!(get(plane.http, "/ready").await.0, 503);
    plane.publish(&service("reviews", &[]));
    assert_eq!(get(plane.http, "/ready").await.0, 200);
}

#[tokio::test]
async fn it_tells_who_has_what() {
    let plane = Plane::start().await;
    plane.publish(&service("reviews", &["10.0.0.1"]));
    let _sidecar = Sidecar::connect(plane.xds, Variant::Incremental, node("web", "10.0.0.9")).await;
    plane.settled(1, 1).await;
    let mesh = json(plane.http, "/api/v1/mesh").await;
    assert_eq!((&mesh["number"], &mesh["objects"]), (&1.into(), &2.into()));
    assert_eq!(mesh["proxies"]["synced"], 1);
    let proxy = json(plane.http, "/api/v1/proxies/web.shop").await;
    assert_eq!(proxy["xds"]["CDS"]["status"], "SYNCED");
    assert_eq!((&proxy["variant"], &proxy["mesh"]), (&"delta".into(), &1.into()));
    let syncz = json(plane.http, "/debug/syncz").await;
    assert_eq!(syncz[0]["proxy"], node("web", "10.0.0.9").id);
    assert_eq!(syncz[0]["cluster_sent"], syncz[0]["cluster_acked"]);
    let dump = json(plane.http, "/debug/config_dump?proxyID=web.shop").await;
    let clusters = dump["configs"][0]["dynamic_active_clusters"].as_array().unwrap();
    assert!(clusters.iter().any(|it| it["cluster"]["name"] == cluster("reviews")));
    assert_eq!(get(plane.http, "/debug/config_dump").await.0, 400);
    let host = "reviews.shop.svc.cluster.local";
    let registry = json(plane.http, "/debug/registryz").await;
    assert_eq!(registry[0]["hostname"], host);
    assert_eq!(registry[0]["ports"][0]["protocol"], "HTTP");
    let endpoints = json(plane.http, "/debug/endpointz").await;
    let endpoint = &endpoints[host]["shop"]["Shards"]["Kubernetes"][0];
    assert_eq!(
        (&endpoint["Addresses"][0], &endpoint["EndpointPort"]),
        (&"10.0.0.1".into(), &8080.into())
    );
    let told = json(plane.http, "/debug/edsz?proxyID=web.shop").await;
    let told = told["configs"][0]["dynamic_endpoint_configs"].as_array().unwrap();
    assert!(told.iter().any(|it| it["endpoint_config"]["cluster_name"] == cluster("reviews")));
    let (status, body) = get(plane.http, "/api/v1/proxies/nobody.shop").await;
    assert!(status == 404 && body.contains("web.shop"), "{body}");
    let objects = json(plane.http, "/api/v1/objects").await;
    assert_eq!(objects[0]["file"], "mesh.yaml");
    let pushes = json(plane.http, "/api/v1/pushes").await;
    assert_eq!(pushes[0]["mesh"], 1);
}

#[tokio::test]
async fn the_openapi_document_lists_what_there_is() {
    let plane = Plane::start().await;
    plane.publish(&service("reviews", &["10.0.0.1"]));
    let _sidecar = Sidecar::connect(plane.xds, Variant::Incremental, node("web", "10.0.0.9")).await;
    plane.settled(1, 1).await;
    let document = json(plane.http, "/openapi.json").await;
    let page = get(plane.http, "/").await.1;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let mut asked = path.replace("{proxy}", "web.shop");
        for parameter in operations["get"]["parameters"].as_array().unwrap() {
            if parameter["in"] == "query" {
                let name = parameter["name"].as_str().unwrap();
                let value = match name {
                    "method" => "GET",
                    "url" => "http%3A%2F%2Freviews%2F",
                    "header" => "x:y",
                    _ => "web.shop",
                };
                let separator = if asked.contains('?') { '&' } else { '?' };
                asked = format!("{asked}{separator}{name}={value}");
            }
        }
        assert_eq!(get(plane.http, &asked).await.0, 200, "{asked}");
        assert!(page.contains(path));
    }
}
