//! Payload matching, and whose configuration counts.

use std::sync::Arc;
use std::time::Instant;

use super::progress::tests::config;
use super::{CheckResult, SharedCluster, find};
use crate::cluster::Reports;
use crate::cluster::outlier_detection::tests::config as detection;
use crate::cluster::tests::spec;
use crate::config::cluster::OutlierDetection;

#[test]
fn parts_are_found_one_after_the_other() {
    let parts = |parts: &[&str]| -> Vec<Vec<u8>> {
        parts.iter().map(|part| part.as_bytes().to_vec()).collect()
    };
    assert!(find(&[], b""));
    assert!(find(&parts(&["ab", "cd"]), b"xabxcdx"));
    assert!(!find(&parts(&["ab", "cd"]), b"cdab"));
    assert!(!find(&parts(&["ab", "b"]), b"ab"), "parts do not overlap");
    assert!(!find(&parts(&["ab"]), b"a"));
}

#[test]
fn the_newest_configuration_says_what_a_passed_check_means() {
    let checked = |uneject_on_active_success| {
        spec(&[1], |cluster| {
            cluster.hosts.health_check = Some(Arc::new(config(1, 1)));
            let detection = OutlierDetection { uneject_on_active_success, ..detection() };
            cluster.outlier_detection = Some(detection.into());
        })
    };
    let passed = CheckResult::Passed { degraded: false };
    let shared = SharedCluster::new(&checked(false), Reports::default(), Instant::now());
    let host = Arc::clone(&shared.current().1[0]);
    host.set_ejected(true);
    shared.take_in(&host, passed).unwrap();
    assert!(host.is_ejected());
    shared.adopt(&checked(true));
    shared.take_in(&host, passed).unwrap();
    assert!(!host.is_ejected());
}
