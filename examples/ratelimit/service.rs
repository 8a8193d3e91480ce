//! Answers proxies: each descriptor of a question is counted in its window.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tonic::{Request, Response, Status, async_trait};
use xds::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use xds::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit, rate_limit,
};
use xds::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitService;
use xds::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use xds::envoy::r#type::v3::RateLimitUnit;

use crate::limits::{Limit, Limits, Unit};
use crate::store::Store;

/// See the module.
#[derive(Debug)]
pub(crate) struct Service {
    limits: Limits,
    store: Store,
}

impl Service {
    /// Counts in `store` what `limits` limit.
    pub(crate) fn new(limits: Limits, store: Store) -> Self {
        Self { limits, store }
    }

    async fn status(
        &self,
        domain: &str,
        descriptor: &RateLimitDescriptor,
        hits: u64,
        now: Duration,
    ) -> Result<DescriptorStatus, Status> {
        let known = || self.limits.of(&descriptor.entries).filter(|_| domain == self.limits.domain);
        let limit = overridden(descriptor).or_else(|| known().cloned());
        let Some(limit) = limit else {
            return Ok(DescriptorStatus { code: Code::Ok.into(), ..DescriptorStatus::default() });
        };
        let window = limit.unit.seconds();
        let entries = descriptor.entries.iter().map(|it| format!("{}_{}", it.key, it.value));
        let entries: Vec<_> = entries.collect();
        let begin = now.as_secs() / window * window;
        let key = format!("{domain}_{}_{window}_{begin}", entries.join("_"));
        let hits = descriptor.hits_addend.unwrap_or(hits);
        let count = self.store.add(&key, hits, begin + window).await;
        let count = count.map_err(|error| Status::unavailable(format!("{error:#}")))?;
        let most = u64::from(limit.requests_per_unit);
        let left = u32::try_from(most.saturating_sub(count)).unwrap_or(u32::MAX);
        let reset = Duration::from_secs(begin + window).saturating_sub(now);
        Ok(DescriptorStatus {
            code: if count > most { Code::OverLimit } else { Code::Ok }.into(),
            current_limit: Some(RateLimit {
                name: limit.name,
                requests_per_unit: limit.requests_per_unit,
                unit: unit(limit.unit).into(),
            }),
            limit_remaining: left,
            duration_until_reset: prost_types::Duration::try_from(reset).ok(),
        })
    }
}

/// The limit that the question brings itself.
fn overridden(descriptor: &RateLimitDescriptor) -> Option<Limit> {
    let limit = descriptor.limit.as_ref()?;
    let unit = match limit.unit() {
        RateLimitUnit::Second => Unit::Second,
        RateLimitUnit::Minute => Unit::Minute,
        RateLimitUnit::Hour => Unit::Hour,
        RateLimitUnit::Day => Unit::Day,
        RateLimitUnit::Unknown | RateLimitUnit::Month | RateLimitUnit::Year => return None,
    };
    Some(Limit { unit, requests_per_unit: limit.requests_per_unit, name: String::new() })
}

fn unit(unit: Unit) -> rate_limit::Unit {
    match unit {
        Unit::Second => rate_limit::Unit::Second,
        Unit::Minute => rate_limit::Unit::Minute,
        Unit::Hour => rate_limit::Unit::Hour,
        Unit::Day => rate_limit::Unit::Day,
    }
}

#[async_trait]
impl RateLimitService for Service {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let RateLimitRequest { domain, descriptors, hits_addend } = request.into_inner();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut statuses = Vec::with_capacity(descriptors.len());
        for descriptor in &descriptors {
            let hits = u64::from(hits_addend.max(1));
            statuses.push(self.status(&domain, descriptor, hits, now).await?);
        }
        let is_over = statuses.iter().any(|status| status.code() == Code::OverLimit);
        let overall = if is_over { Code::OverLimit } else { Code::Ok };
        Ok(Response::new(RateLimitResponse {
            overall_code: overall.into(),
            statuses,
            ..RateLimitResponse::default()
        }))
    }
}
