//! Texts with units: memory, cores.

use super::file::Quantity;
use crate::quote::quoted;

/// Bytes of `2GB`, `1.5 GB`, `512Mi`, `1048576`. A KB is 1024 bytes, as container runtimes count it.
pub(super) fn memory(quantity: &Quantity) -> Result<u64, String> {
    let wrong =
        |shown: &str| format!("{shown} is not an amount of memory; write e.g. \"512MB\" or \"1.5GB\"");
    let (number, unit) = match quantity {
        Quantity::Number(number) => (*number, ""),
        Quantity::Text(text) => {
            let text = text.trim();
            let split = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
            let (number, unit) = text.split_at(split);
            (number.trim().parse().map_err(|_| wrong(&format!("{:?}", quoted(text))))?, unit)
        }
    };
    let power = match unit.to_ascii_uppercase().trim_end_matches('B').trim_end_matches('I') {
        "" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => return Err(wrong(&format!("\"{number}{}\"", quoted(unit)))),
    };
    let bytes = number * 1024_f64.powi(power);
    if !bytes.is_finite() || bytes < 1.0 || bytes > 2_f64.powi(53) {
        return Err(wrong(&format!("\"{number}{unit}\"")));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 1 to 2^53, checked above"
    )]
    let bytes = bytes as u64;
    Ok(bytes)
}

/// Cores of `2`, `"1.5"`, `"500m"`.
pub(super) fn cores(quantity: &Quantity) -> Result<f64, String> {
    let (cores, shown) = match quantity {
        Quantity::Number(number) => (Some(*number), number.to_string()),
        Quantity::Text(text) => {
            let number = match text.trim().strip_suffix('m') {
                Some(milli) => milli.parse::<f64>().ok().map(|milli| milli / 1000.0),
                None => text.trim().parse().ok(),
            };
            (number, format!("{:?}", quoted(text)))
        }
    };
    match cores {
        Some(cores) if cores > 0.0 && cores <= 100_000.0 => Ok(cores),
        _ => Err(format!("{shown} is not a number of cores; write e.g. \"2\" or \"1.5\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Quantity {
        Quantity::Text(text.to_owned())
    }

    #[test]
    fn memory_is_read_with_its_unit() {
        let read =
            ["2GB", "1.5GB", "512Mi", "100 KB", "7", "1TiB"].map(|written| memory(&text(written)).unwrap());
        assert_eq!(read, [2 << 30, 3 << 29, 512 << 20, 100 << 10, 7, 1 << 40]);
        assert_eq!(memory(&Quantity::Number(5.0)).unwrap(), 5);
    }

    #[test]
    fn what_is_no_memory_is_refused_with_an_example() {
        for written in ["", "GB", "-1GB", "2XB", "1e400", "NaN", "0"] {
            assert!(
                memory(&text(written)).unwrap_err().ends_with("write e.g. \"512MB\" or \"1.5GB\""),
                "{written}"
            );
        }
    }

    #[test]
    fn cores_may_be_fractions_and_thousandths() {
        let read = ["2", "1.5", "500m"].map(|written| cores(&text(written)).unwrap());
        assert_eq!(read, [2.0, 1.5, 0.5]);
        for written in ["", "two", "0", "-1", "inf", "NaN"] {
            assert!(cores(&text(written)).is_err(), "{written}");
        }
    }
}
