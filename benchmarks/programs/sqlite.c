/* Debian's SQLite: a table in memory, an index, inserts, updates and grouped queries. */
#include <sqlite3.h>
#include "bench.h"

static sqlite3 *db;

static void run(const char *sql) {
  char *message;
  if (sqlite3_exec(db, sql, NULL, NULL, &message)) {
    fprintf(stderr, "sqlite: %s\n", message);
    exit(1);
  }
}

static void bench_setup(void) {
  if (sqlite3_open(":memory:", &db)) exit(1);
  run("create table orders (id integer primary key, customer integer, item text, price real)");
  run("create index by_customer on orders (customer)");
}

static uint64_t bench_round(unsigned index) {
  sqlite3_stmt *insert, *query;
  run("delete from orders");
  run("begin");
  sqlite3_prepare_v2(db, "insert into orders (customer, item, price) values (?, ?, ?)", -1, &insert, NULL);
  for (int i = 0; i < 1500; i++) {
    char item[16];
    snprintf(item, sizeof item, "item %d", i * 7919 % 97);
    sqlite3_bind_int(insert, 1, (int)(i * 31 + index) % 53);
    sqlite3_bind_text(insert, 2, item, -1, SQLITE_TRANSIENT);
    sqlite3_bind_double(insert, 3, i * 0.25);
    sqlite3_step(insert);
    sqlite3_reset(insert);
  }
  sqlite3_finalize(insert);
  run("commit");
  run("update orders set price = price * 1.5 where customer % 3 = 0 and item like '%7%'");
  uint64_t sum = 0;
  const char *const sql =
      "select customer, count(*), sum(price), max(item) from orders where customer between ?1 and ?1 + 20 group by customer order by sum(price) desc limit 10";
  sqlite3_prepare_v2(db, sql, -1, &query, NULL);
  for (int i = 0; i < 30; i++) {
    sqlite3_bind_int(query, 1, i);
    while (sqlite3_step(query) == SQLITE_ROW)
      sum = sum * 31 + (uint64_t)sqlite3_column_int(query, 0) * 1000 + (uint64_t)(sqlite3_column_double(query, 2) * 4) + sqlite3_column_text(query, 3)[5];
    sqlite3_reset(query);
  }
  sqlite3_finalize(query);
  return sum;
}
