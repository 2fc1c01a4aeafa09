//! Writes the recorded frames as a fuzzer's first inputs: `seeds RECORDING FOLDER`
//! fills `FOLDER/frames` and `FOLDER/messages`.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [recording, folder] = std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "usage: seeds RECORDING FOLDER")?;
    let (frames, messages) = (Path::new(&folder).join("frames"), Path::new(&folder).join("messages"));
    fs::create_dir_all(&frames)?;
    fs::create_dir_all(&messages)?;
    let recording: Value = serde_json::from_slice(&fs::read(recording)?)?;
    let all = recording["exchanges"].as_array().into_iter().flatten();
    for (number, frame) in all.flat_map(|it| it["frames"].as_array()).flatten().enumerate() {
        let bytes = STANDARD.decode(frame["bytes"].as_str().unwrap_or_default())?;
        let side = u8::from(frame["from"] == "runner");
        fs::write(frames.join(number.to_string()), [&[64], &bytes[..]].concat())?;
        if let [kind, _, _, _, body @ ..] = &bytes[..] {
            let selector = kind.wrapping_mul(2) + side;
            fs::write(messages.join(number.to_string()), [&[selector], body].concat())?;
        }
    }
    Ok(())
}
