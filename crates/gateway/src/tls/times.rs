//! When a certificate begins and ends to be valid.

use rustls::pki_types::CertificateDer;

/// When a certificate begins and ends to be valid, in seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) begins: i64,
    pub(crate) ends: i64,
}

impl Times {
    /// Reads them from a certificate; `None` if it is none.
    pub(crate) fn of(certificate: &CertificateDer) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let validity = parsed.validity();
        Some(Self { begins: validity.not_before.timestamp(), ends: validity.not_after.timestamp() })
    }

    /// Returns when it is to be renewed: after two thirds of its life, so that a third is left for what goes wrong.
    pub(crate) fn renew_at(self) -> i64 {
        self.begins + (self.ends - self.begins) / 3 * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_thirds_of_a_life() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 1);
        let certificate = params.self_signed(&key).unwrap();
        let times = Times::of(certificate.der()).unwrap();
        assert_eq!(times.ends - times.begins, 90 * 86_400);
        assert_eq!(times.renew_at() - times.begins, 60 * 86_400);
        assert_eq!(Times::of(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
