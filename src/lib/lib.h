/*
 * lib: what the commands of this program and its tests use of libpdd besides include/pdd.h. None of
 * it is exported. Threads: as pdd.h says.
 */
#ifndef PDD_LIB_LIB_H
#define PDD_LIB_LIB_H

#include "base/err.h"
#include "engine/engine.h"
#include "pdd.h"

/* A model of an engine that is open already, such as a fake one; taken on success. Speeds of 0 are
 * measured. */
int lib_model_of(struct engine *engine, double prefill_tps, double decode_us, pdd_model **ret_model,
                 struct err *e);

#endif
