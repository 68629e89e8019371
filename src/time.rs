//! Points in time as text, in UTC: the two forms callers parse, RFC 3339 with and without fractions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(Duration);

impl Moment {
    pub fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// Whole seconds since 1970.
    pub fn since_1970(self) -> u64 {
        self.0.as_secs()
    }

    /// What `seconds` writes; None for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<u64> = text.split(['-', 'T', ':', 'Z']).map_while(|part| part.parse().ok()).collect();
        let [year @ ..=9999, month @ 1..=12, day @ 1..=31, hour @ ..=23, minute @ ..=59, second @ ..=59] =
            parts[..]
        else {
            return None;
        };
        let moment = Self(Duration::from_secs(
            days_to(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second,
        ));
        (moment.seconds() == text).then_some(moment)
    }

    /// `2026-11-20T23:43:51Z`.
    pub fn seconds(self) -> String {
        format!("{}Z", self.date_and_time())
    }

    /// `2026-11-20T23:43:51.123456789Z`, without trailing zeros.
    pub fn nanoseconds(self) -> String {
        let fraction = format!(".{:09}", self.0.subsec_nanos());
        let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
        format!("{}{fraction}Z", self.date_and_time())
    }

    fn date_and_time(self) -> String {
        let seconds = self.0.as_secs();
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
    }
}

/// From the first of March in the year 0.
const DAYS_TO_1970: u64 = 719_468;

/// Days since 1970. Years are counted from March, so that a leap day is the last of its year.
fn days_to(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let march_month = (month + 9) % 12;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * march_month + 2) / 5 + day - 1;
    days.checked_sub(DAYS_TO_1970)
}

/// Days since 1970 as year, month and day. Years are counted from March, in cycles of 400.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_CYCLE: u64 = 146_097;
    let days = days + DAYS_TO_1970;
    let day = days % DAYS_IN_CYCLE;
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year + days / DAYS_IN_CYCLE * 400 + u64::from(month <= 2);
    (year, month, day_of_year - (153 * march_month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_as_dates() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_399, 0, "2000-02-28T23:59:59Z"),
            (951_782_400, 120_000_000, "2000-02-29T00:00:00.12Z"),
            (951_868_800, 1, "2000-03-01T00:00:00.000000001Z"),
            (1_795_218_231, 500, "2026-11-20T23:43:51.0000005Z"),
            (4_107_542_399, 0, "2100-02-28T23:59:59Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
        ] {
            let moment = Moment(Duration::new(seconds, nanos));
            assert_eq!(moment.nanoseconds(), text);
            assert_eq!(moment.seconds(), format!("{}Z", &text[..19]));
            assert_eq!(Moment::parse(&moment.seconds()), Some(Moment(Duration::from_secs(seconds))));
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in
            ["", "now", "2026-02-29T00:00:00Z", "1969-12-31T00:00:00Z", "2026-11-20T24:00:00Z", "2026-11-20"]
        {
            assert_eq!(Moment::parse(text), None, "{text}");
        }
    }
}
