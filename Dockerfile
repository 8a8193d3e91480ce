# Two small images from one build: `--target proxy` and `--target control`.
# Each holds one static program and the public certificate authorities, runs as user 1337 and writes
# nothing: start it with --read-only. `.ci/image` proves it without a container engine.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Static, so that the images need no libraries; the target is named because build scripts must not be.
ENV RUSTFLAGS="-C target-feature=+crt-static"
RUN cargo build --release --locked --target "$(uname -m)-unknown-linux-gnu" -p proxy -p control-api --bins
RUN rm -rf image && mkdir -p image/proxy/usr/local/bin image/control/usr/local/bin image/proxy/etc/ssl/certs
RUN cp "target/$(uname -m)-unknown-linux-gnu/release/outrigger" image/proxy/usr/local/bin/
RUN cp "target/$(uname -m)-unknown-linux-gnu/release/outrigger-control" image/control/usr/local/bin/
RUN cp -L /etc/ssl/certs/ca-certificates.crt image/proxy/etc/ssl/certs/
# A pod that starts `envoy …` starts the proxy with the same arguments.
RUN ln -s outrigger image/proxy/usr/local/bin/envoy

FROM scratch AS control
COPY --from=build /src/image/control/ /
ENV PATH=/usr/local/bin
USER 1337:1337
ENTRYPOINT ["/usr/local/bin/outrigger-control"]

FROM scratch AS proxy
COPY --from=build /src/image/proxy/ /
ENV PATH=/usr/local/bin
USER 1337:1337
ENTRYPOINT ["/usr/local/bin/outrigger"]
CMD ["-c", "/etc/outrigger/bootstrap.yaml"]
