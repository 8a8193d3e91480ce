//! Checks that look at several objects together. Names are those of Istio's analyzers that look for the same.

mod annotation;
mod authorization;
mod destination_rule;
mod envoy_filter;
mod external_control_plane;
mod gateway;
mod gateway_conflict;
mod injection;
mod kubernetes_gateway;
mod mesh_networks;
mod removed;
mod service;
mod service_entry;
mod sidecar;
mod telemetry;
mod virtual_service;
mod virtual_service_conflict;
mod workload;

use super::Rule;

/// All of them.
pub(super) static ALL: &[Rule] = &[
    Rule {
        name: "annotations.K8sAnalyzer",
        about: "annotations of Istio that are misspelled, misplaced, deprecated or have a bad value",
        check: annotation::check,
    },
    Rule {
        name: "authn.BlockedCIDRsAnalyzer",
        about: "an istiod that fetches keys of JWTs from anywhere",
        check: authorization::unrestricted_key_fetches,
    },
    Rule {
        name: "authz.AuthorizationPoliciesAnalyzer",
        about: "authorization policies for no workload, and namespaces that do not exist",
        check: authorization::policies,
    },
    Rule {
        name: "deployment.ApplicationUIDAnalyzer",
        about: "containers that run as the user of the sidecar",
        check: workload::user_of_the_proxy,
    },
    Rule {
        name: "deployment.ServiceAssociationAnalyzer",
        about: "deployments behind services that contradict each other",
        check: workload::service_association,
    },
    Rule {
        name: "deprecation.FieldAnalyzer",
        about: "fields and kinds that are going away",
        check: removed::check,
    },
    Rule {
        name: "destinationrule.CaCertificateAnalyzer",
        about: "TLS to servers that are not verified",
        check: destination_rule::unverified_servers,
    },
    Rule {
        name: "destinationrule.PodNotSelectedAnalyzer",
        about: "destination rules for unknown hosts, and subsets without pods",
        check: destination_rule::subsets_without_pods,
    },
    Rule {
        name: "envoyfilter.EnvoyPatchAnalyzer",
        about: "patches that depend on the order of others, or cannot apply",
        check: envoy_filter::check,
    },
    Rule {
        name: "externalcontrolplane.ExternalControlPlaneAnalyzer",
        about: "webhooks of an external control plane without a host name",
        check: external_control_plane::check,
    },
    Rule {
        name: "gateway.CertificateAnalyzer",
        about: "one certificate in several gateways, which clients of HTTP/2 mix up",
        check: gateway_conflict::duplicate_certificates,
    },
    Rule {
        name: "gateway.ConflictingGatewayAnalyzer",
        about: "gateways with the same hosts, port and workload",
        check: gateway_conflict::same_hosts,
    },
    Rule {
        name: "gateway.IngressGatewayPortAnalyzer",
        about: "gateways without a workload, and ports that its service does not have",
        check: gateway::ports,
    },
    Rule {
        name: "gateway.SecretAnalyzer",
        about: "gateways whose certificate's secret is missing or incomplete",
        check: gateway::secrets,
    },
    Rule {
        name: "injection.Analyzer",
        about: "namespaces and pods without a sidecar, and labels that contradict each other",
        check: injection::sidecars,
    },
    Rule {
        name: "injection.ImageAnalyzer",
        about: "sidecars of another version than injected now",
        check: injection::images,
    },
    Rule {
        name: "k8sgateway.CRDVersionAnalyzer",
        about: "definitions of the Gateway API that are too old",
        check: kubernetes_gateway::definitions,
    },
    Rule {
        name: "k8sgateway.SelectorAnalyzer",
        about: "policies that select a gateway's pods instead of naming the gateway",
        check: kubernetes_gateway::selectors,
    },
    Rule {
        name: "multicluster.MeshNetworksAnalyzer",
        about: "networks with endpoints of unknown registries",
        check: mesh_networks::check,
    },
    Rule {
        name: "service.PortNameAnalyzer",
        about: "ports whose name does not tell the protocol",
        check: service::port_names,
    },
    Rule {
        name: "serviceentry.ConflictingServiceEntryProtocolAnalyzer",
        about: "one host and port with several protocols",
        check: service_entry::conflicting_protocols,
    },
    Rule {
        name: "serviceentry.ProtocolAddressesAnalyzer",
        about: "TCP ports of hosts without an address to tell them apart",
        check: service_entry::missing_addresses,
    },
    Rule {
        name: "sidecar.SelectorAnalyzer",
        about: "sidecars for no workload, and several for one",
        check: sidecar::check,
    },
    Rule {
        name: "telemetry.DefaultSelectorAnalyzer",
        about: "several telemetries for all of a namespace",
        check: telemetry::several_defaults,
    },
    Rule {
        name: "telemetry.ProviderAnalyzer",
        about: "access logs that go nowhere",
        check: telemetry::no_providers,
    },
    Rule {
        name: "telemetry.SelectorAnalyzer",
        about: "telemetries for no workload, and several for one",
        check: telemetry::selectors,
    },
    Rule {
        name: "virtualservice.ConflictingMeshGatewayHostsAnalyzer",
        about: "several virtual services for one host inside the mesh",
        check: virtual_service_conflict::check,
    },
    Rule {
        name: "virtualservice.DestinationHostAnalyzer",
        about: "routes to hosts or ports that do not exist",
        check: virtual_service::destinations,
    },
    Rule {
        name: "virtualservice.DestinationRuleAnalyzer",
        about: "routes to subsets that no destination rule defines",
        check: virtual_service::subsets,
    },
    Rule {
        name: "virtualservice.GatewayAnalyzer",
        about: "gateways that do not exist, or do not serve the hosts",
        check: virtual_service::gateways,
    },
];
