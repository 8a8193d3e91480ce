//! Who must speak TLS: the modes of PeerAuthentication.

use certs::Request;
use harness::client::tls::TlsOptions;
use harness::{Backend, Pki, Program, TcpBackend};

use super::mesh::{Mesh, client, for_bytes, of_the_mesh};
use super::{CALLER, MYSQL, PRODUCTPAGE, verdict};

on_both!(
    permissive_takes_what_has_no_tls,
    strict_takes_nothing_without_tls,
    one_port_may_be_without_tls,
);

/// Somebody with a certificate that says `uri`, issued by `pki`, if at all.
fn somebody(mesh: &Mesh, pki: &Pki, uri: Option<&str>) -> TlsOptions {
    let identity = uri.map(|uri| pki.issue("somebody", &Request::default().uri(uri)));
    let mut options = mesh.pki.client(identity.as_ref());
    "productpage.default".clone_into(&mut options.server_name);
    options
}

/// Who comes how, of which the mesh's own are let in wherever TLS is spoken.
fn callers(mesh: &Mesh) -> Vec<(&'static str, Option<TlsOptions>)> {
    let us = "spiffe://cluster.local/ns/default/sa/x";
    vec![
        ("in plain text", None),
        ("of the mesh", Some(mesh.workload("default/x"))),
        ("unnamed", Some(of_the_mesh(somebody(mesh, &mesh.pki, None)))),
        ("of another authority", Some(of_the_mesh(somebody(mesh, &Pki::new(), Some(us))))),
        ("of another mesh", {
            let them = "spiffe://other.example/ns/default/sa/x";
            Some(of_the_mesh(somebody(mesh, &mesh.pki, Some(them))))
        }),
        ("with TLS of its own", Some(somebody(mesh, &mesh.pki, Some(us)))),
    ]
}

async fn permissive_takes_what_has_no_tls(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let _app = Backend::echo_at("app", PRODUCTPAGE).await;
    mesh.redirect(PRODUCTPAGE);
    let _proxy = mesh.node("sidecar-productpage").only_inbound().start(program).await;
    for (who, tls) in callers(&mesh) {
        let expected = match who {
            "in plain text" | "of the mesh" => "200",
            _ => "closed",
        };
        let call = client(CALLER, tls.as_ref(), PRODUCTPAGE).get("/");
        assert_eq!(verdict(call).await, expected, "{who}");
    }
}

async fn strict_takes_nothing_without_tls(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let elsewhere = (PRODUCTPAGE.ip(), 8000).into();
    let _apps =
        [Backend::echo_at("app", PRODUCTPAGE).await, Backend::echo_at("other", elsewhere).await];
    mesh.redirect(PRODUCTPAGE);
    let _proxy =
        mesh.node("sidecar-productpage").pushed("014-lds").only_inbound().start(program).await;
    for (who, tls) in callers(&mesh) {
        let expected = match who {
            "of the mesh" | "with TLS of its own" => "200",
            _ => "closed",
        };
        let call = client(CALLER, tls.as_ref(), PRODUCTPAGE).get("/");
        assert_eq!(verdict(call).await, expected, "{who}");
    }
    let tls = mesh.workload("default/x");
    assert_eq!(verdict(client(CALLER, Some(&tls), elsewhere).get("/")).await, "200");
    assert_eq!(verdict(client(CALLER, None, elsewhere).get("/")).await, "closed");
}

async fn one_port_may_be_without_tls(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let elsewhere = (MYSQL.ip(), 9999).into();
    let _apps = [TcpBackend::echo_at(MYSQL).await, TcpBackend::echo_at(elsewhere).await];
    mesh.redirect(MYSQL);
    // Another policy lets nobody in.
    let node = mesh.node("sidecar-mysqldb").only_inbound();
    let node = node.without_filters(|name| name == "envoy.filters.network.rbac");
    let _proxy = node.start(program).await;
    let workload = for_bytes("mysqldb.data", mesh.workload("data/dbclient"));
    for (tls, to, passes) in [
        (None, MYSQL, true),
        (Some(&workload), MYSQL, false),
        (None, elsewhere, false),
        (Some(&workload), elsewhere, true),
    ] {
        let is_tls = tls.is_some();
        assert_eq!(client(CALLER, tls, to).echoes(b"hello").await, passes, "{to}, TLS: {is_tls}");
    }
}
