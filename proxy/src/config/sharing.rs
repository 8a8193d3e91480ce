//! What equal configurations have in common is kept once: ten thousand clusters rarely say ten thousand different things.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::cluster::{Cluster, Discovery, OutlierDetection, Thresholds, UpstreamHttp};
use super::connecting::Connecting;
use super::endpoint::{LoadAssignment, Locality};
use super::health_check::HealthCheck;
use super::tls::UpstreamTls;

/// Most values of a kind that later ones are compared with.
const REMEMBERED: usize = 16;

/// A value that others may have too; whoever changes theirs gets a copy.
#[derive(Clone, Default, PartialEq)]
pub struct Shared<T>(Arc<T>);

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The parts of the clusters seen last. Each further cluster gets those of its parts from here that are equal.
#[derive(Debug, Default)]
pub struct Parts {
    circuit_breakers: Interner<[Thresholds; 2]>,
    outlier_detection: Interner<OutlierDetection>,
    http: Interner<UpstreamHttp>,
    connecting: Interner<Connecting>,
    health_check: Interner<HealthCheck>,
    tls: Interner<UpstreamTls>,
    localities: Interner<Locality>,
}

impl Parts {
    /// Replaces parts of `cluster` by equal ones.
    pub fn share(&mut self, cluster: &mut Cluster) {
        self.circuit_breakers.share(&mut cluster.circuit_breakers.0);
        self.http.share(&mut cluster.http.0);
        self.connecting.share(&mut cluster.connecting.0);
        if let Some(detection) = &mut cluster.outlier_detection {
            self.outlier_detection.share(&mut detection.0);
        }
        if let Some(check) = &mut cluster.hosts.health_check {
            self.health_check.share(check);
        }
        if let Some(tls) = &mut cluster.tls {
            self.tls.share(tls);
        }
        let assignment = match &mut cluster.discovery {
            Discovery::Static(assignment) => Some(assignment),
            Discovery::Dns(names) => Some(&mut names.assignment),
            Discovery::Eds(_) | Discovery::OriginalDst(_) | Discovery::ForwardProxy(_) => None,
        };
        // Nobody else has it yet.
        if let Some(assignment) = assignment.and_then(Arc::get_mut) {
            if assignment.cluster_name == cluster.name {
                assignment.cluster_name = Arc::clone(&cluster.name);
            }
            self.share_endpoints(assignment);
        }
    }

    /// Replaces parts of `assignment` by equal ones.
    pub fn share_endpoints(&mut self, assignment: &mut LoadAssignment) {
        for endpoint in &mut assignment.endpoints {
            self.localities.share(&mut endpoint.locality);
        }
    }
}

/// Different values of one kind, the one met last first.
#[derive(Debug)]
struct Interner<T>(Vec<Arc<T>>);

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: PartialEq> Interner<T> {
    fn share(&mut self, value: &mut Arc<T>) {
        let equal = |known: &Arc<T>| Arc::ptr_eq(known, value) || known == value;
        match self.0.iter().position(equal) {
            Some(place) => {
                let known = self.0.remove(place);
                *value = Arc::clone(&known);
                self.0.insert(0, known);
            }
            None => {
                self.0.truncate(REMEMBERED - 1);
                self.0.insert(0, Arc::clone(value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_become_one_and_a_change_is_ones_own() {
        let mut interner = Interner::default();
        let mut values = [1, 2, 1, 2, 3].map(Shared::from);
        for value in &mut values {
            interner.share(&mut value.0);
        }
        assert_eq!(values.each_ref().map(|value| **value), [1, 2, 1, 2, 3]);
        assert!(Arc::ptr_eq(&values[0].0, &values[2].0));
        assert!(Arc::ptr_eq(&values[1].0, &values[3].0));
        *values[0] = 7;
        assert_eq!(values.map(|value| *value), [7, 2, 1, 2, 3]);
    }

    #[test]
    fn only_some_values_are_remembered() {
        let mut interner = Interner::default();
        for number in 0..1000 {
            interner.share(&mut Arc::new(number));
            assert!(interner.0.len() <= REMEMBERED);
        }
        assert_eq!(*interner.0[0], 999);
    }
}
