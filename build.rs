//! Generates the gRPC code and its descriptor set from `proto/`, without `protoc`.

use std::path::PathBuf;

/// The files that hold services.
const SERVICES: [&str; 3] =
    ["tollgate/v1/decision.proto", "tollgate/v1/license.proto", "tollgate/v1/hub.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(SERVICES, ["proto"])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    std::fs::write(out.join("tollgate.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().codec_path("crate::proto::Codec").compile_fds(descriptors)?;
    Ok(())
}
