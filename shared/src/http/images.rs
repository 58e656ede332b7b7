//! Pictures in a user's message: `data:` addresses only, checked before anything is stored.

use super::error::ApiError;
use crate::bounds::{MESSAGE_PICTURES, PICTURE_BYTES, PICTURES_BYTES};
use crate::message::Part;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What vendors can look at.
const TYPES: [&str; 6] = ["image/jpeg", "image/png", "image/gif", "image/webp", "image/heic", "image/heif"];

/// Counts the pictures of one request.
#[derive(Debug, Default)]
pub(super) struct Pictures {
    in_message: usize,
    bytes: usize,
}

impl Pictures {
    /// The next message begins.
    pub(super) fn next_message(&mut self) {
        self.in_message = 0;
    }

    /// Reads one picture.
    ///
    /// # Errors
    /// 400 at `param`: not a `data:` address in base64, a type that is not taken, or beyond a limit.
    pub(super) fn read(&mut self, url: &str, param: &str) -> Result<Part, ApiError> {
        let invalid = |message: &str| ApiError::invalid_at(param, format!("`{param}` {message}"));
        let Some(rest) =
            url.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("data:")).map(|_| &url[5..])
        else {
            return Err(invalid(
                "must be a `data:` URL with the picture in base64; other URLs are not fetched.",
            ));
        };
        let (media_type, data) =
            rest.split_once(";base64,").ok_or_else(|| invalid("must be `data:<type>;base64,<data>`."))?;
        let media_type = media_type.to_ascii_lowercase();
        if !TYPES.contains(&media_type.as_str()) {
            return Err(invalid("must be a jpeg, png, gif, webp, heic or heif picture."));
        }
        let size = decoded_size(data).ok_or_else(|| invalid("is not valid base64."))?;
        if size == 0 {
            return Err(invalid("is an empty picture."));
        }
        self.in_message += 1;
        self.bytes += size;
        if self.in_message > MESSAGE_PICTURES {
            return Err(invalid("is one picture too many: a message may have 8."));
        }
        if size > PICTURE_BYTES {
            return Err(invalid("is larger than 10 MB."));
        }
        if self.bytes > PICTURES_BYTES {
            return Err(invalid("is too much: the pictures of one request may have 20 MB together."));
        }
        Ok(Part::Image { media_type, data: data.to_owned() })
    }
}

/// How many bytes the text decodes to; `None` if it is not standard base64 with padding. Decodes piece by piece, so
/// that no second copy of a picture is made.
fn decoded_size(data: &str) -> Option<usize> {
    const PIECE: usize = 4096;
    let mut buffer = [0_u8; PIECE / 4 * 3];
    let mut size = 0;
    let last = data.len().saturating_sub(1) / PIECE;
    for (index, piece) in data.as_bytes().chunks(PIECE).enumerate() {
        let decoded = STANDARD.decode_slice(piece, &mut buffer).ok()?;
        // Padding may stand at the very end only.
        if index < last && decoded != buffer.len() {
            return None;
        }
        size += decoded;
    }
    Some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decoded_size_is_that_of_a_real_decoder() {
        for length in [0, 1, 2, 3, 4, 3071, 3072, 3073, 6144, 10_000] {
            let text = STANDARD.encode(vec![7_u8; length]);
            assert_eq!(decoded_size(&text), Some(length));
        }
        let padded_inside = format!("{}{}", STANDARD.encode([7_u8; 3071]), STANDARD.encode([7_u8; 3]));
        for broken in ["a", "aa", "aa=", "aaa=a", "aa==aaaa", "äöü", "a a=", &padded_inside] {
            assert_eq!(decoded_size(broken), None, "{broken}");
        }
    }
}
