#!/usr/bin/env python3
"""ask.py: one question through libpdd by ctypes; tokens appear as they come. See docs/LIBPDD.md.

    ask.py MODEL.gguf|- URL|- QUESTION
"""
import sys
from ctypes import (CDLL, CFUNCTYPE, Structure, byref, c_char, c_char_p, c_float, c_int, c_int32,
                    c_size_t, c_uint32, c_uint64, c_void_p, sizeof, string_at)

pdd = CDLL("libpdd.so.0")
ON_TEXT = CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t, c_void_p)


def struct(name, *fields):
    """A struct of pdd.h; `size` comes first."""
    made = type(name, (Structure,), {"_fields_": [("size", c_size_t), *fields]})
    return lambda **values: made(size=sizeof(made), **values)


class Error(Structure):
    _fields_ = [("code", c_int), ("text", c_char * 512)]


# Names for what is used; the rest of each struct only keeps its place.
ModelOptions = struct("ModelOptions", ("path", c_char_p), ("counts", c_uint32 * 2), ("kv_bytes", c_uint64),
                      ("names", c_char_p * 4), ("no_think", c_int), ("profile", c_char_p))
DeviceOptions = struct("DeviceOptions", ("model", c_void_p), ("cloud_url", c_char_p), ("names", c_char_p * 4),
                       ("kv_disk_bytes", c_uint64), ("stall_ms", c_uint32), ("read_ahead", c_int))
Question = struct("Question", ("chat", c_void_p), ("text", c_char_p), ("text_length", c_size_t), ("raw", c_int),
                  ("mode", c_int), ("tokens_max", c_uint32), ("temperature", c_float), ("top_k", c_uint32),
                  ("sampling", c_float * 3), ("repeat_last", c_uint32), ("penalties", c_float * 2),
                  ("min_tokens", c_uint32), ("seed", c_uint64), ("pace", c_int),
                  ("goal", c_int), ("limits", c_uint32 * 3), ("cloud_tokens", c_int32), ("verify", c_int),
                  ("refine", c_int), ("refine_ratio", c_float), ("on_text", ON_TEXT), ("others", c_void_p * 4))


def call(function, *args):
    error = Error()
    if function(*args, byref(error)) < 0:
        sys.exit("ask.py: " + error.text.decode())


@ON_TEXT
def show(_arg, text, length, _token):
    sys.stdout.buffer.write(string_at(text, length))
    sys.stdout.buffer.flush()
    return 0


if len(sys.argv) != 4:
    sys.exit(__doc__)
path, url, text = (None if a == "-" else a.encode() for a in sys.argv[1:])
model, device = c_void_p(), c_void_p()
if path:
    call(pdd.pdd_model_open, byref(ModelOptions(path=path)), byref(model))
call(pdd.pdd_device_open, byref(DeviceOptions(model=model, cloud_url=url)), byref(device))
call(pdd.pdd_ask, device, byref(Question(text=text, on_text=show)), None)
print()
pdd.pdd_device_close(device)
pdd.pdd_model_close(model)
