//! Floating-point numbers as C's and Go's `%e` and `%g` print them.

/// `%.{digits}g` of a finite number: that many significant digits, no trailing zeros.
pub(super) fn general(value: f64, digits: usize) -> String {
    let digits = digits.max(1);
    let scientific = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = split(&scientific);
    if exponent < -4 || exponent >= digits as i32 {
        return with_exponent(trim_zeros(mantissa), exponent);
    }
    // Not negative: an exponent is below `digits` here.
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    trim_zeros(&format!("{value:.decimals$}")).to_owned()
}

/// Go's `%v`: the shortest text that reads back as the same number, with an exponent from a million on.
pub(super) fn shortest(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        }
        .to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = split(&scientific);
    if (-4..6).contains(&exponent) { format!("{value}") } else { with_exponent(mantissa, exponent) }
}

/// `%.{decimals}e`.
pub(super) fn scientific(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$e}");
    let (mantissa, exponent) = split(&text);
    with_exponent(mantissa, exponent)
}

fn split(scientific: &str) -> (&str, i32) {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    (mantissa, exponent.parse().unwrap_or(0))
}

/// Rust writes `1e3` where C and Go write `1e+03`.
fn with_exponent(mantissa: &str, exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn general_like_printf() {
        let cases: &[(f64, usize, &str)] = &[
            (0.0, 4, "0"),
            (1.0, 4, "1"),
            (7.8001, 3, "7.8"),
            (123.456, 4, "123.5"),
            (999.94, 4, "999.9"),
            (999.96, 4, "1000"),
            (999.9, 3, "1e+03"),
            (1000.0, 4, "1000"),
            (1023.0, 4, "1023"),
            (0.00001234, 3, "1.23e-05"),
            (0.0001234, 3, "0.000123"),
            (-1.5, 3, "-1.5"),
        ];
        for (value, digits, expected) in cases {
            assert_eq!(general(*value, *digits), *expected);
        }
    }

    #[test]
    fn shortest_like_go() {
        let cases: &[(f64, &str)] = &[
            (1.5, "1.5"),
            (3.0, "3"),
            (100000.0, "100000"),
            (1e6, "1e+06"),
            (12345678.5, "1.23456785e+07"),
            (1e-5, "1e-05"),
        ];
        for (value, expected) in cases {
            assert_eq!(shortest(*value), *expected);
        }
        assert_eq!(scientific(1500.0, 6), "1.500000e+03");
    }
}
