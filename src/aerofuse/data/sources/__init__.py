"""Where photos come from. Every source gives its photos as `aerofuse.data.photo.Photo`."""
