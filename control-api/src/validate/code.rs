//! The codes of findings: Istio's, with their names and levels, and a few of our own.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Probably a mistake.
    Warning,
    /// Something does not work.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A kind of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Code {
    /// As people look it up.
    pub id: &'static str,
    /// As programs know it.
    pub name: &'static str,
    /// How bad it is.
    pub level: Level,
}

macro_rules! codes {
    ($($constant:ident = $id:ident $name:ident $level:ident;)*) => {
        $(
            #[doc = concat!("`", stringify!($id), "`.")]
            pub const $constant: Code = Code {
                id: stringify!($id),
                name: stringify!($name),
                level: Level::$level,
            };
        )*

        /// All of them.
        pub const ALL: &[Code] = &[$($constant),*];
    };
}

codes! {
    DEPRECATED = IST0002 Deprecated Warning;
    REFERENCED_RESOURCE_NOT_FOUND = IST0101 ReferencedResourceNotFound Error;
    NAMESPACE_NOT_INJECTED = IST0102 NamespaceNotInjected Info;
    POD_MISSING_PROXY = IST0103 PodMissingProxy Warning;
    SCHEMA_VALIDATION_ERROR = IST0106 SchemaValidationError Error;
    MISPLACED_ANNOTATION = IST0107 MisplacedAnnotation Warning;
    UNKNOWN_ANNOTATION = IST0108 UnknownAnnotation Warning;
    CONFLICTING_MESH_GATEWAY_HOSTS = IST0109 ConflictingMeshGatewayVirtualServiceHosts Error;
    CONFLICTING_SIDECAR_SELECTORS = IST0110 ConflictingSidecarWorkloadSelectors Error;
    MULTIPLE_SIDECARS = IST0111 MultipleSidecarsWithoutWorkloadSelectors Error;
    DESTINATION_PORT_REQUIRED = IST0112 VirtualServiceDestinationPortSelectorRequired Error;
    DEPLOYMENT_MULTIPLE_SERVICES = IST0116 DeploymentAssociatedToMultipleServices Warning;
    PORT_NAME_CONVENTION = IST0118 PortNameIsNotUnderNamingConvention Info;
    MULTIPLE_INJECTION_LABELS = IST0123 NamespaceMultipleInjectionLabels Warning;
    INVALID_ANNOTATION = IST0125 InvalidAnnotation Warning;
    UNKNOWN_SERVICE_REGISTRY = IST0126 UnknownMeshNetworksServiceRegistry Error;
    NO_MATCHING_WORKLOADS = IST0127 NoMatchingWorkloadsFound Warning;
    NO_VERIFICATION_DESTINATION = IST0128 NoServerCertificateVerificationDestinationLevel Warning;
    NO_VERIFICATION_PORT = IST0129 NoServerCertificateVerificationPortLevel Warning;
    UNREACHABLE_RULE = IST0130 VirtualServiceUnreachableRule Warning;
    INEFFECTIVE_MATCH = IST0131 VirtualServiceIneffectiveMatch Info;
    HOST_NOT_FOUND_IN_GATEWAY = IST0132 VirtualServiceHostNotFoundInGateway Warning;
    SCHEMA_WARNING = IST0133 SchemaWarning Warning;
    ADDRESSES_REQUIRED = IST0134 ServiceEntryAddressesRequired Warning;
    DEPRECATED_ANNOTATION = IST0135 DeprecatedAnnotation Info;
    DEPLOYMENT_CONFLICTING_PORTS = IST0137 DeploymentConflictingPorts Warning;
    DUPLICATE_CERTIFICATE = IST0138 GatewayDuplicateCertificate Warning;
    INGRESS_ROUTE_NOT_AFFECTED = IST0140 IngressRouteRulesNotAffected Warning;
    INVALID_APPLICATION_UID = IST0144 InvalidApplicationUID Warning;
    CONFLICTING_GATEWAYS = IST0145 ConflictingGateways Error;
    INJECTION_ENABLED_BY_DEFAULT = IST0148 NamespaceInjectionEnabledByDefault Info;
    JWT_ROUTING_WITHOUT_AUTHENTICATION = IST0149 JwtClaimBasedRoutingWithoutRequestAuthN Error;
    EXTERNAL_NAME_PORT = IST0150 ExternalNameServiceTypeInvalidPortName Warning;
    PATCH_RELATIVE = IST0151 EnvoyFilterUsesRelativeOperation Warning;
    PATCH_REPLACE = IST0152 EnvoyFilterUsesReplaceOperationIncorrectly Error;
    PATCH_ADD = IST0153 EnvoyFilterUsesAddOperationIncorrectly Error;
    PATCH_REMOVE = IST0154 EnvoyFilterUsesRemoveOperationIncorrectly Error;
    PATCH_RELATIVE_VERSIONED = IST0155 EnvoyFilterUsesRelativeOperationWithProxyVersion Warning;
    EMPTY_PROVIDERS = IST0157 InvalidTelemetryProvider Warning;
    PROXY_IMAGE_MISMATCH = IST0158 PodsIstioProxyImageMismatchInNamespace Warning;
    CONFLICTING_TELEMETRY_SELECTORS = IST0159 ConflictingTelemetryWorkloadSelectors Error;
    MULTIPLE_TELEMETRIES = IST0160 MultipleTelemetriesWithoutWorkloadSelectors Error;
    INVALID_GATEWAY_CREDENTIAL = IST0161 InvalidGatewayCredential Error;
    GATEWAY_PORT_NOT_ON_SERVICE = IST0162 GatewayPortNotDefinedOnService Warning;
    INVALID_EXTERNAL_CONTROL_PLANE = IST0163 InvalidExternalControlPlaneConfig Warning;
    EXTERNAL_CONTROL_PLANE_ADDRESS = IST0164 ExternalControlPlaneAddressIsNotAHostname Info;
    REFERENCED_INTERNAL_GATEWAY = IST0165 ReferencedInternalGateway Warning;
    INEFFECTIVE_SELECTOR = IST0166 IneffectiveSelector Warning;
    INEFFECTIVE_POLICY = IST0167 IneffectivePolicy Warning;
    SUBSET_SELECTS_NO_PODS = IST0173 DestinationRuleSubsetNotSelectPods Error;
    UNKNOWN_DESTINATION_RULE_HOST = IST0174 UnknownDestinationRuleHost Warning;
    JWKS_FETCH_UNRESTRICTED = IST0175 JwksUriFetchUnrestricted Warning;
    GATEWAY_API_CRD_VERSION = IST0176 GatewayAPICRDVersionBelowMinimum Warning;
    CONFLICTING_SERVICE_ENTRY_PROTOCOL = IST0177 ConflictingServiceEntryProtocol Warning;
    UNREADABLE_FILE = OUT0001 UnreadableFile Error;
    DUPLICATE_OBJECT = OUT0002 DuplicateObject Warning;
    NOT_APPLIED = OUT0003 NotApplied Warning;
}
