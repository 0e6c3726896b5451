-- A delivery is written three times: the later versions fit beside the first, and the indexes stay as they are.
ALTER TABLE distribu.deliveries SET (fillfactor = 50);
