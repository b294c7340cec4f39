/* store_needle: see store_needle.h. */
#include "store/store_needle.h"

int store_needle_load(struct store *s, const char *model, uint32_t *ret_found, struct err *e)
{
    sqlite3_stmt *find;
    int code = store_prepare(s, "SELECT found FROM needle WHERE model = ?", &find, e);
    if (code) return code;
    code = sqlite3_bind_text(find, 1, model, -1, SQLITE_STATIC);
    code = code ? store_error(s, code, e) : store_step(s, find, e);
    if (code == 1) *ret_found = (uint32_t)sqlite3_column_int(find, 0);
    sqlite3_finalize(find);
    if (code == 0) return err_set(e, ERR_NOT_FOUND, "%s was not tested yet", model);
    return code < 0 ? code : 0;
}

int store_needle_save(struct store *s, const char *model, uint32_t found, struct err *e)
{
    sqlite3_stmt *put;
    int code = store_prepare(s, "INSERT OR REPLACE INTO needle VALUES (?, ?)", &put, e);
    if (code) return code;
    code = sqlite3_bind_text(put, 1, model, -1, SQLITE_STATIC);
    if (!code) code = sqlite3_bind_int(put, 2, (int)found);
    code = code ? store_error(s, code, e) : store_step(s, put, e);
    sqlite3_finalize(put);
    return code < 0 ? code : 0;
}
