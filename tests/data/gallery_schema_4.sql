CREATE TABLE models (
            role text primary key,         -- 'proposer' or 'encoder'
            name text not null,            -- for people
            weight_hash text not null,     -- SHA-256 of the files and of the settings that matter, hex
            model_set text not null        -- the set they came from: a name, or a TOML file's path
        ) without rowid
        ;

CREATE TABLE photos (
            id integer primary key autoincrement,  -- never used again: a search may still hold it
            sha256 blob not null unique,   -- of the file's bytes
            width integer not null,        -- photo pixels, orientation applied
            height integer not null,
            mask_width integer not null,   -- working pixels: the size of this photo's masks
            mask_height integer not null,
            orientation integer not null,  -- EXIF orientation of the file, 1 to 8
            taken_at text,                 -- ISO 8601, the camera's local time
            camera text,
            latitude real,                 -- degrees, north positive
            longitude real,                -- degrees, east positive
            added_at text not null         -- ISO 8601, UTC
        );

CREATE TABLE files (
            path primary key not null,     -- absolute; text, or a blob where the name is not UTF-8
            photo_id integer not null references photos (id) on delete cascade,
            bytes integer not null,
            mtime_ns integer not null
        ) without rowid
        ;

CREATE INDEX files_by_photo on files (photo_id);

CREATE TABLE previews (
            photo_id integer primary key references photos (id) on delete cascade,
            jpeg blob not null             -- the photo at working size, orientation applied
        );

CREATE TABLE regions (
            id integer primary key autoincrement,
            photo_id integer not null references photos (id) on delete cascade,
            ordinal integer not null,      -- 0 is the whole photo, then the proposer's order
            x0 real not null,              -- box, photo pixels, continuous edges
            y0 real not null,
            x1 real not null,
            y1 real not null,
            area integer not null,         -- of the mask, working pixels
            predicted_iou real not null,
            stability real not null,
            rle blob not null,             -- COCO compressed counts, mask_height x mask_width
            unique (photo_id, ordinal)
        );

CREATE TABLE skipped (
            path primary key not null,
            reason text not null,
            bytes integer not null,
            mtime_ns integer not null,
            seen_at text not null
        ) without rowid
        ;

CREATE TABLE questions (           -- what judges were asked, newest last
            id integer primary key,
            judge text not null,           -- SHA-256 of its weights and settings, hex
            query text not null,
            unique (judge, query)
        );

CREATE TABLE verdicts (
            question_id integer not null references questions (id) on delete cascade,
            photo_id integer not null references photos (id) on delete cascade,
            z_true real not null,          -- logits at the answer position (eq. 2)
            z_false real not null,
            primary key (question_id, photo_id)
        ) without rowid
        ;

CREATE INDEX verdicts_by_photo on verdicts (photo_id);

CREATE TABLE groundings (
            question_id integer not null references questions (id) on delete cascade,
            photo_id integer not null references photos (id) on delete cascade,
            boxes text not null,           -- JSON, [[x0, y0, x1, y1], ...], photo pixels
            answer text not null,          -- as the judge gave it
            readable integer not null,     -- 0: the answer had no form that boxes can be read from
            primary key (question_id, photo_id)
        ) without rowid
        ;

CREATE INDEX groundings_by_photo on groundings (photo_id);

CREATE TABLE vectors (
            region_id integer primary key references regions (id) on delete cascade,
            photo_id integer not null,     -- as in regions, whose rows a search then need not read
            vector blob not null           -- int8 a dimension, rotated: see matir_cli/vectors.py
        );

CREATE TABLE blocks (              -- sign codes of many photos' regions: derived from vectors
            id integer primary key,
            runs blob not null,            -- int64 triples: photo, first region, count
            centre blob not null,          -- float32 a dimension: what the codes are relative to
            codes blob not null            -- see SignCodes in matir_cli/vectors.py
        );

CREATE TABLE loose (               -- photos that are in no block yet
            photo_id integer primary key references photos (id) on delete cascade
        );

CREATE TABLE notes (               -- what could not be read of a photo's file
            photo_id integer not null references photos (id) on delete cascade,
            kind text not null,            -- 'picture' or 'metadata': what it is a part of
            note text not null,            -- a phrase for people
            primary key (photo_id, kind, note)
        ) without rowid
        ;

CREATE TABLE residuals (           -- what int8 leaves of a photo's vectors; absent for older ones
            photo_id integer primary key references photos (id) on delete cascade,
            residuals blob not null        -- 4 bits a dimension, regions by ordinal: search/quantisation.py
        );

CREATE TABLE codes (               -- codes of many photos' regions: derived from vectors
            id integer primary key,
            runs blob not null,            -- int64 triples: photo, first region, count
            centre blob not null,          -- float32 a dimension: what the codes are relative to
            codes blob not null            -- 4 bits a dimension: see search/codes.py
        );

CREATE TABLE file_metadata (       -- of a file and its sidecars; no row: not read yet
            path primary key not null references files (path) on update cascade on delete cascade,
            rating integer,                -- -1 (rejected) to 5; null: none
            latitude real,                 -- degrees, north positive; null: the sidecar states no position
            longitude real,                -- degrees, east positive
            sidecar_path,                  -- of the sidecar that was read; null: there was none
            sidecar_bytes integer,
            sidecar_mtime_ns integer
        ) without rowid
        ;

CREATE TABLE file_keywords (       -- as in the file or its sidecar
            path not null references file_metadata (path) on update cascade on delete cascade,
            keyword text not null,
            primary key (path, keyword)
        ) without rowid
        ;

CREATE TABLE region_origins (      -- of regions that the proposer did not propose
            region_id integer primary key references regions (id) on delete cascade,
            origin text not null,          -- 'human' or 'data set'
            label text                     -- what it shows, in the words of its source
        );

CREATE TABLE saved_searches (
            id integer primary key,
            name text not null unique,
            search text not null,          -- JSON: the query and the options, as `matir find` takes them
            saved_at text not null,        -- ISO 8601, UTC
            run_at text                    -- ISO 8601, UTC; null: never run
        );

CREATE TABLE saved_results (       -- photos that a saved search has returned already
            search_id integer not null references saved_searches (id) on delete cascade,
            photo_id integer not null references photos (id) on delete cascade,
            primary key (search_id, photo_id)
        ) without rowid
        ;

CREATE INDEX saved_results_by_photo on saved_results (photo_id);

CREATE TABLE next_models (         -- of the vectors that are being made anew, as in models
            role text primary key,
            name text not null,
            weight_hash text not null,
            model_set text not null
        ) without rowid
        ;

CREATE TABLE next_vectors (        -- what will take the place of a photo's vectors and residuals
            photo_id integer primary key references photos (id) on delete cascade,
            vectors blob not null,         -- int8 a dimension, regions by ordinal
            residuals blob not null
        );
