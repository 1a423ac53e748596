//! Operators' repairs: the request → the range and the region.

use crate::crdt::fingerprint::{PostHash, RANGES};
use crate::ids::{PostId, Region};
use crate::wire::admin::RepairRequest;
use crate::wire::admin::repair_request::What;
use crate::wire::field::{self, FieldError};

/// Which range is to be taken from which region.
pub fn read_repair(request: RepairRequest) -> Result<(usize, Region), FieldError> {
    let range = match request.what {
        Some(What::Post(post)) => {
            let post: PostId = field::id("post", &post)?;
            PostHash::of(&post).range()
        }
        Some(What::Range(range)) if (range as usize) < RANGES => range as usize,
        Some(What::Range(range)) => {
            let problem = format!("is {range}; ranges are 0 to {}", RANGES - 1);
            return Err(FieldError::invalid("range", problem));
        }
        None => {
            return Err(FieldError::invalid(
                "what",
                "is missing; give a post or a range",
            ));
        }
    };
    let from = Region::new(&request.from);
    let from = from.map_err(|error| FieldError::invalid("from", error))?;
    Ok((range, from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(what: Option<What>, from: &str) -> Result<usize, String> {
        let from = from.to_owned();
        let read = read_repair(RepairRequest { what, from });
        read.map(|(range, _)| range).map_err(|error| error.field)
    }

    #[test]
    fn posts_and_ranges_are_read_and_faults_are_named() {
        let post = PostHash::of(&PostId::new("p").expect("valid")).range();
        assert_eq!(read(Some(What::Post("p".to_owned())), "us"), Ok(post));
        assert_eq!(read(Some(What::Range(255)), "us"), Ok(255));
        assert_eq!(read(Some(What::Range(256)), "us"), Err("range".to_owned()));
        assert_eq!(
            read(Some(What::Post(String::new())), "us"),
            Err("post".to_owned())
        );
        assert_eq!(read(None, "us"), Err("what".to_owned()));
        assert_eq!(read(Some(What::Range(0)), "No"), Err("from".to_owned()));
    }
}
