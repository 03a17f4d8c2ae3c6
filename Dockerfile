# The images it is made from. Name them by digest (`rust@sha256:…`) where two builds must begin with the same bytes.
ARG RUST_IMAGE=rust:1.90-slim-bookworm
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST_IMAGE} AS builder
WORKDIR /build

# Writes into the binary which crates it was built from: `cargo audit bin`, Trivy and Grype read them there.
RUN cargo install --locked cargo-auditable@0.7.7

# The locked dependencies in a layer of their own, built for empty sources: a change of our own
# sources does not build them again. The manifest names a test and benchmarks, which must exist.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
RUN mkdir -p src tests/it tests/bench \
    && for of in src/main.rs tests/it/main.rs tests/bench/mapping.rs tests/bench/throughput.rs tests/bench/instructions.rs; do \
           echo 'fn main() {}' > $of; \
       done \
    && touch src/lib.rs \
    && cargo auditable build --profile dist --locked --bin cohortd \
    && rm -r src

COPY config/default.toml config/default.toml
COPY src src
COPY .ci/notices .ci/notices
# Touched, because a copied file may be older than what was built from the empty ones.
RUN touch src/main.rs src/lib.rs \
    && cargo auditable build --profile dist --locked --bin cohortd \
    && mkdir -p /staging/volume \
    && .ci/notices /staging/doc \
    && cp src/licenses/* /staging/doc/

# glibc and CA certificates, no shell; runs as user 65532.
FROM ${BASE_IMAGE}

ARG BASE_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="cohortd" \
    org.opencontainers.image.description="Brings Twilio Segment audiences into LaunchDarkly segments" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.base.name="${BASE_IMAGE}" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0"

COPY --from=builder /build/target/dist/cohortd /usr/local/bin/cohortd
# Our licences, and the notices of what is linked into the binary.
COPY --from=builder /staging/doc /usr/share/doc/cohortd
# A new volume takes over the owner of the directory it is mounted on.
COPY --from=builder --chown=65532:65532 /staging/volume /var/lib/cohortd

# cohortd.toml is looked for in the working directory. The admin listener stays on loopback. The ledger has a
# directory of its own on the volume, into which it moves one that was on top of it.
WORKDIR /etc/cohortd
ENV COHORTD_LEDGER__PATH=/var/lib/cohortd/ledger
VOLUME /var/lib/cohortd
EXPOSE 8080
USER 65532:65532

HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/usr/local/bin/cohortd", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/cohortd"]
CMD ["run"]
