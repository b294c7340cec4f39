/* key_file: see key_file.h. */
#include "net/key_file.h"

#include <string.h>

#include "base/os.h"

int key_file_read(const char *path, struct buf *key, struct err *e)
{
    size_t begin = key->len;
    int code = os_read_file(path, key, e);
    if (code) return code;
    size_t n = strcspn(key->data + begin, "\r\n");
    if (n == 0) return err_set(e, ERR_BAD_INPUT, "%s: its first line holds no key", path);
    buf_cut(key, begin + n);
    return 0;
}
