-- The tables of version 4, as it made them, with what a small ledger held.
PRAGMA application_id = 0x63687274;
PRAGMA user_version = 4;
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

CREATE TABLE destination (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    environment TEXT NOT NULL,
    paused_at INTEGER,
    dropped INTEGER NOT NULL DEFAULT 0,
    checksum INTEGER
) STRICT;

CREATE TABLE audience (
    id INTEGER PRIMARY KEY,
    destination INTEGER NOT NULL REFERENCES destination(id),
    audience_id TEXT NOT NULL,
    audience_key TEXT NOT NULL,
    context_kind TEXT NOT NULL,
    acknowledged INTEGER NOT NULL DEFAULT 0,
    told_counts_from INTEGER NOT NULL DEFAULT 0,
    claimed_through INTEGER NOT NULL DEFAULT 0,
    unheard_through INTEGER NOT NULL DEFAULT 0,
    walk_after TEXT,
    walk TEXT,
    included INTEGER NOT NULL DEFAULT 0,
    pending INTEGER NOT NULL DEFAULT 0,
    parked INTEGER NOT NULL DEFAULT 0,
    checksum INTEGER,
    UNIQUE (destination, audience_id)
) STRICT;

CREATE TABLE member (
    audience INTEGER NOT NULL,
    context_key TEXT NOT NULL,
    included INTEGER NOT NULL,
    event_at INTEGER NOT NULL,
    version INTEGER NOT NULL,
    told INTEGER,
    told_at INTEGER,
    pending_since INTEGER,
    parked_at INTEGER,
    flags INTEGER NOT NULL,
    key_rule INTEGER NOT NULL,
    person BLOB,
    refused_with INTEGER,
    checksum INTEGER,
    PRIMARY KEY (audience, context_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE parked (
    audience INTEGER NOT NULL,
    context_key TEXT NOT NULL,
    parked_at INTEGER NOT NULL,
    status INTEGER NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    answer_id TEXT NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (audience, context_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE reassertion (
    settled_at INTEGER NOT NULL,
    audience INTEGER NOT NULL,
    context_key TEXT NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (settled_at, audience, context_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE forgotten (
    person BLOB PRIMARY KEY,
    forgotten_at INTEGER NOT NULL,
    checksum INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE rejected (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    destination INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    body BLOB NOT NULL,
    person BLOB,
    checksum INTEGER
) STRICT;

CREATE INDEX member_pending ON member (audience, pending_since) WHERE pending_since IS NOT NULL;
CREATE INDEX member_person ON member (person) WHERE person IS NOT NULL;
CREATE INDEX parked_since ON parked (parked_at);
CREATE INDEX rejected_person ON rejected (person) WHERE person IS NOT NULL;
CREATE INDEX rejected_destination ON rejected (destination);

INSERT INTO meta (name, value)
    VALUES ('arrival', 1795917594520868);
INSERT INTO meta (name, value)
    VALUES ('arrival_checksum', 3182972222);
INSERT INTO meta (name, value)
    VALUES ('merged', 0);
INSERT INTO meta (name, value)
    VALUES ('merged_checksum', 1696784233);
INSERT INTO meta (name, value)
    VALUES ('person_key', X'6827416D4A09D83B9A3BF5FB4B782F6D92B75780DEB25DFA11C51A8306232934');
INSERT INTO meta (name, value)
    VALUES ('person_key_checksum', 1905936246);
INSERT INTO destination (id, name, environment, paused_at, dropped, checksum)
    VALUES (1, 'production', 'http://127.0.0.1:9/ 64f0c0ffee', NULL, 0, 2605966886);
INSERT INTO audience (id, destination, audience_id, audience_key, context_kind, acknowledged, told_counts_from, claimed_through, unheard_through, walk_after, walk, included, pending, parked, checksum)
    VALUES (1, 1, 'aud_vip', 'vip', 'user', 0, 0, 0, 0, NULL, NULL, 2, 4, 0, 3128232039);
INSERT INTO audience (id, destination, audience_id, audience_key, context_kind, acknowledged, told_counts_from, claimed_through, unheard_through, walk_after, walk, included, pending, parked, checksum)
    VALUES (2, 1, 'aud_beta', 'beta', 'user', 0, 0, 0, 0, NULL, NULL, 1, 1, 0, 994408222);
INSERT INTO member (audience, context_key, included, event_at, version, told, told_at, pending_since, parked_at, flags, key_rule, person, refused_with, checksum)
    VALUES (1, 'ada', 1, 1749988800000000, 1795917594520308, NULL, NULL, 1795917594520308, NULL, 0, 1, NULL, NULL, 2327443961);
INSERT INTO member (audience, context_key, included, event_at, version, told, told_at, pending_since, parked_at, flags, key_rule, person, refused_with, checksum)
    VALUES (1, 'bob', 0, 1749988800000000, 1795917594520426, NULL, NULL, 1795917594520426, NULL, 0, 1, NULL, NULL, 96213006);
INSERT INTO member (audience, context_key, included, event_at, version, told, told_at, pending_since, parked_at, flags, key_rule, person, refused_with, checksum)
    VALUES (1, 'eve', 1, 1795917594443652, 1795917594520460, NULL, NULL, 1795917594520460, NULL, 0, 1, NULL, NULL, 3624170443);
INSERT INTO member (audience, context_key, included, event_at, version, told, told_at, pending_since, parked_at, flags, key_rule, person, refused_with, checksum)
    VALUES (1, 'gus', 0, 1795917594443652, 1795917594520762, NULL, NULL, 1795917594520474, NULL, 2, 1, NULL, NULL, 3396331810);
INSERT INTO member (audience, context_key, included, event_at, version, told, told_at, pending_since, parked_at, flags, key_rule, person, refused_with, checksum)
    VALUES (2, 'cyd', 1, 1749988800000000, 1795917594520490, NULL, NULL, 1795917594520490, NULL, 0, 1, NULL, NULL, 2865458299);
INSERT INTO forgotten (person, forgotten_at, checksum)
    VALUES (X'1BD29C2A7B50881A1C2CFDC4C01FF696', 1795917594443652, 3829940220);
INSERT INTO rejected (id, destination, received_at, reason, detail, body, person, checksum)
    VALUES (1, 1, 1795917594443652, 'membership_unknown', 'The value under the audience''s key in traits_or_props is a text, and neither true nor false.', X'7B2274797065223A20226964656E74696679222C20226D6573736167654964223A20226661792D7669702D323032352D30362D31355431323A30303A30305A222C2022757365724964223A2022666179222C2022636F6E74657874223A207B22706572736F6E6173223A207B22636F6D7075746174696F6E5F636C617373223A202261756469656E6365222C2022636F6D7075746174696F6E5F6964223A20226175645F766970222C2022636F6D7075746174696F6E5F6B6579223A2022766970227D7D2C2022747261697473223A207B22766970223A20226D61796265227D2C202274696D657374616D70223A2022323032352D30362D31355431323A30303A30305A227D', X'751C58A07E3920D59AE571C3B667AC71', 3307573252);
