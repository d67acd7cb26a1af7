-- What the last load left out, a line for each bundle, declaration or imported file, for `quantgate status`.
CREATE TABLE store.left_out (line VARCHAR NOT NULL);
