-- Rate limits, in a database of their own: losing it costs nothing but a burst.
CREATE TABLE limits (
  subject TEXT NOT NULL,
  arrival BIGINT NOT NULL,              -- theoretical arrival time, microseconds since the Unix epoch
  PRIMARY KEY (subject)
) /*clustered*/;
