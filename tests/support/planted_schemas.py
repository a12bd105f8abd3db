"""Statements after which a gallery has a schema that this tool did not make."""

PLANTED = [
    "create table more (x)",
    "create view more as with recursive n(i) as (select 1 union all select i + 1 from n) select i from n",
    "create trigger more after delete on photos begin delete from files; end",
    "create virtual table more using fts5 (x)",
    "create index more on photos (camera)",
    "create index more on photos (width) where width > 5",
    "alter table photos add column more text",
    "alter table photos add column more integer generated always as (width * height) virtual",
    "alter table photos add column more integer check (more > 0)",
    "alter table photos drop column camera",
    "alter table photos rename column camera to more",
    "alter table photos rename to more",
    "drop table verdicts",
    "drop index files_by_photo",
    "drop table loose; create table loose (photo_id integer primary key)",
    "drop table photos; create view photos as select 1 as id",
    "drop table skipped; create table skipped (path primary key not null, reason text not null, "
    "bytes integer not null, mtime_ns integer not null, seen_at text not null)",
    "pragma user_version = -1",
    "pragma user_version = -2147483648",
    "pragma user_version = 0",
]
