# syntax=docker/dockerfile:1
#
# The image of a gate: the program and what it needs of the C library, no shell, no root.
#
#   SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) docker buildx build --platform linux/amd64,linux/arm64 \
#     --sbom=true --provenance=mode=max --output type=image,name=REGISTRY/tollgate,push=true,rewrite-timestamp=true .
#
# Built again from the same commit with the same bases, the program is the same, byte for byte: sources lie under one path,
# what is depended on is locked, and compilers are told what time it is. Files have the time of the commit. Name bases by
# digest to hold them.
ARG RUST=docker.io/library/rust:1.95-bookworm
ARG BASE=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST} AS build
WORKDIR /src
# mimalloc writes into itself when it was compiled.
ENV SOURCE_DATE_EPOCH=0
# Which crates the program is made of, inside of it: scanners read it, and `--sbom` does.
RUN cargo install --locked cargo-auditable@0.7.7
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo auditable build --locked --profile image --bin tollgate \
    && install -D target/image/tollgate /out/tollgate

FROM ${BASE}
COPY LICENSE NOTICE /usr/share/doc/tollgate/
COPY --from=build /out/tollgate /usr/local/bin/tollgate
# As the base has it; a number, so that Kubernetes can see that it is not root.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/tollgate"]
CMD ["serve", "--config", "/etc/tollgate/tollgate.yaml"]
