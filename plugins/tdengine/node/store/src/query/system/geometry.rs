//! Geometries as texts, the way tags are shown: `POINT (1.000000 2.000000)`.

/// A WKB text; `None` for kinds that the node does not know.
pub(super) fn text(wkb: &[u8]) -> Option<String> {
    let (order, rest) = wkb.split_first()?;
    let (kind, mut rest) = rest.split_first_chunk::<4>()?;
    if *order != 1 {
        return None;
    }
    match u32::from_le_bytes(*kind) {
        1 => Some(format!("POINT ({})", point(&mut rest)?)),
        2 => Some(format!("LINESTRING {}", points(&mut rest)?)),
        3 => {
            let rings = count(&mut rest)?;
            let rings = (0..rings).map(|_| points(&mut rest)).collect::<Option<Vec<_>>>()?;
            Some(format!("POLYGON ({})", rings.join(", ")))
        }
        _ => None,
    }
}

fn count(rest: &mut &[u8]) -> Option<u32> {
    let (count, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_le_bytes(*count))
}

fn points(rest: &mut &[u8]) -> Option<String> {
    let points = count(rest)?;
    let points = (0..points).map(|_| point(rest)).collect::<Option<Vec<_>>>()?;
    Some(format!("({})", points.join(", ")))
}

fn point(rest: &mut &[u8]) -> Option<String> {
    let (x, after) = rest.split_first_chunk::<8>()?;
    let (y, after) = after.split_first_chunk::<8>()?;
    *rest = after;
    Some(format!("{:.6} {:.6}", f64::from_le_bytes(*x), f64::from_le_bytes(*y)))
}
