"""From photos and labels of any source to the prepared splits, with a report on them."""
