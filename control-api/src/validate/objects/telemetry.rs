//! `Telemetry`: names that are not empty, percentages, and tags.

use super::check::Check;
use crate::model::istio::telemetry::{Metrics, Telemetry, Tracing};

pub(super) fn check(spec: &Telemetry, check: &mut Check<'_>) {
    check.targets(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    if spec.tracing.len() > 1 {
        check
            .warn("spec.tracing", "multiple tracing is not currently supported: the first is used");
    }
    for (index, tracing) in spec.tracing.iter().enumerate() {
        self::tracing(&format!("spec.tracing[{index}]"), tracing, check);
    }
    for (index, metrics) in spec.metrics.iter().enumerate() {
        self::metrics(&format!("spec.metrics[{index}]"), metrics, check);
    }
    for (index, logging) in spec.access_logging.iter().enumerate() {
        for (at, provider) in logging.providers.iter().enumerate() {
            let path = format!("spec.accessLogging[{index}].providers[{at}].name");
            check.min_length(&path, &provider.name);
        }
    }
}

fn tracing(path: &str, tracing: &Tracing, check: &mut Check<'_>) {
    if tracing.providers.len() > 1 {
        let reason = "multiple providers is not currently supported: the first is used";
        check.warn(&format!("{path}.providers"), reason);
    }
    for (at, provider) in tracing.providers.iter().enumerate() {
        check.min_length(&format!("{path}.providers[{at}].name"), &provider.name);
    }
    if let Some(percentage) = tracing.random_sampling_percentage {
        check.percent(&format!("{path}.randomSamplingPercentage"), percentage);
    }
    for (name, tag) in &tracing.custom_tags {
        let path = format!("{path}.customTags[{name}]");
        check.min_length(&path, name);
        let given = [
            tag.literal.is_some(),
            tag.environment.is_some(),
            tag.header.is_some(),
            tag.formatter.is_some(),
        ];
        if given.iter().filter(|given| **given).count() != 1 {
            check.error(
                &path,
                "exactly one of literal, environment, header and formatter must be set",
            );
        }
        if let Some(literal) = &tag.literal {
            check.min_length(&format!("{path}.literal.value"), &literal.value);
        }
        if let Some(environment) = &tag.environment {
            check.min_length(&format!("{path}.environment.name"), &environment.name);
        }
        if let Some(header) = &tag.header {
            check.min_length(&format!("{path}.header.name"), &header.name);
        }
    }
}

fn metrics(path: &str, metrics: &Metrics, check: &mut Check<'_>) {
    for (at, provider) in metrics.providers.iter().enumerate() {
        check.min_length(&format!("{path}.providers[{at}].name"), &provider.name);
    }
    for (at, overrides) in metrics.overrides.iter().enumerate() {
        let path = format!("{path}.overrides[{at}]");
        let Some(matched) = &overrides.r#match else { continue };
        if let Some(custom) = &matched.custom_metric {
            check.min_length(&format!("{path}.match.customMetric"), custom);
            if matched.metric.is_some() {
                check.error(
                    &format!("{path}.match"),
                    "only one of metric and customMetric can be set",
                );
            }
        }
    }
}
