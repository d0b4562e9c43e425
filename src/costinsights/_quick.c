/* What each watched call does, some of it twice, in C: the clock of costinsights/clock.py, and of
 * costinsights/ledger the lines (lines.py, seal.py), the sums (sums.py) and the usual way into a file
 * (segment.py). These say what it is, and run where this was not built, or where a case is not the
 * usual one; tests hold each against its twin here.
 *
 * Why: while a driver waits for its server the processor's caches go cold, and then each byte code
 * and each object counts. A line is written here in a fifth of the time that Python takes.
 *
 * It keeps to the stable ABI of CPython 3.10, so that one wheel serves them all, and lets go of the GIL
 * for the write alone: no other thread and no signal handler sees a clock that is being moved, or sums.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

/* -- numbers ---------------------------------------------------------------------------------- */

typedef unsigned __int128 units __attribute__((aligned(8))); /* 10**-15 s: five hours of them are 2**64 */

static PyObject *as_int(units value)
{
    uint64_t high = (uint64_t)(value >> 64);
    PyObject *low = PyLong_FromUnsignedLongLong((uint64_t)value);
    if (!high || low == NULL)
        return low;
    PyObject *found = NULL, *shift = PyLong_FromLong(64), *top = PyLong_FromUnsignedLongLong(high);
    PyObject *moved = shift && top ? PyNumber_Lshift(top, shift) : NULL;
    if (moved)
        found = PyNumber_Or(moved, low);
    Py_XDECREF(moved);
    Py_XDECREF(top);
    Py_XDECREF(shift);
    Py_DECREF(low);
    return found;
}

/* Read what `as_int` has given; -1 with an exception where it is something else. */
static int from_int(PyObject *number, units *value)
{
    unsigned long long low = PyLong_AsUnsignedLongLong(number);
    if (low != (unsigned long long)-1 || !PyErr_Occurred()) {
        *value = low;
        return 0;
    }
    if (!PyErr_ExceptionMatches(PyExc_OverflowError))
        return -1;
    PyErr_Clear();
    PyObject *shift = PyLong_FromLong(64), *top = shift ? PyNumber_Rshift(number, shift) : NULL;
    unsigned long long high = top ? PyLong_AsUnsignedLongLong(top) : (unsigned long long)-1;
    low = PyLong_AsUnsignedLongLongMask(number);
    Py_XDECREF(top);
    Py_XDECREF(shift);
    if (PyErr_Occurred())
        return -1;
    *value = (units)high << 64 | low;
    return 0;
}

/* -- lines ------------------------------------------------------------------------------------ */

static uint32_t crc_table[256];

static void make_crc_table(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? 0xEDB88320u ^ (crc >> 1) : crc >> 1;
        crc_table[byte] = crc;
    }
}

/* The CRC-32 of zlib. */
static uint32_t crc32_of(const char *bytes, size_t size)
{
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < size; i++)
        crc = crc_table[(crc ^ (unsigned char)bytes[i]) & 255] ^ (crc >> 8);
    return crc ^ 0xFFFFFFFFu;
}

#define SEAL ",\"z\":\"LLLLLLCCCCCCCC\"}\n"
enum {
    SEALED = sizeof SEAL - 1,
    MAX_LINE = 0xFFFFFF,
    MOST_DIGITS = 40, /* of a number, with its sign */
    MOST_NUMBERS = 16, /* of a line, each with its name */
    NUMBERS = MOST_NUMBERS * (MOST_DIGITS + 8),
    ROOM = 2048, /* what nearly every line has enough of */
};

/* Write the seal of the `size` bytes before `at`, and return where it ends. */
static char *seal_at(char *at, size_t size)
{
    uint64_t sum = (uint64_t)size << 32 | crc32_of(at - size, size);
    memcpy(at, SEAL, SEALED);
    for (char *digit = at + SEALED - sizeof "\"}\n"; digit >= at + sizeof ",\"z\":\"" - 1; sum >>= 4)
        *digit-- = "0123456789abcdef"[sum & 15];
    return at + SEALED;
}

static char *digits_at(char *at, units number)
{
    char digits[MOST_DIGITS];
    int count = 0;
    uint64_t left;
    for (; number >> 64; number /= 10)
        digits[count++] = (char)('0' + (int)(number % 10));
    left = (uint64_t)number;
    do
        digits[count++] = (char)('0' + left % 10);
    while (left /= 10);
    while (count)
        *at++ = digits[--count];
    return at;
}

static char *value_at(char *at, const char *name, size_t size, long long value)
{
    memcpy(at, name, size);
    at += size;
    if (value < 0)
        *at++ = '-';
    return digits_at(at, value < 0 ? 0ULL - (unsigned long long)value : (unsigned long long)value);
}

#define VALUE_AT(at, name, value) value_at(at, name, sizeof name - 1, value)

/* Write a name and a number; NULL with an exception where that is none. */
static char *number_at(char *at, const char *name, size_t size, PyObject *number)
{
    long long value = PyLong_AsLongLong(number);
    if (value == -1 && PyErr_Occurred())
        return NULL;
    return value_at(at, name, size, value);
}

#define NUMBER_AT(at, name, number) number_at(at, name, sizeof name - 1, number)

/* A text that is being written; `small` is where short ones are. */
typedef struct {
    char *start, *at, *end, small[ROOM];
} Text;

static void begin(Text *text)
{
    text->start = text->at = text->small;
    text->end = text->small + ROOM;
}

/* Have room for as many bytes more; -1 with an exception where there is none. */
static int need(Text *text, size_t size)
{
    if ((size_t)(text->end - text->at) >= size)
        return 0;
    size_t used = (size_t)(text->at - text->start), all = 2 * (used + size);
    char *old = text->start == text->small ? NULL : text->start;
    char *more = PyMem_Realloc(old, all);
    if (more == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (old == NULL)
        memcpy(more, text->small, used);
    text->start = more;
    text->at = more + used;
    text->end = more + all;
    return 0;
}

static void end(Text *text)
{
    if (text->start != text->small)
        PyMem_Free(text->start);
}

static int add_bytes(Text *text, const char *bytes, size_t size)
{
    if (need(text, size) < 0)
        return -1;
    memcpy(text->at, bytes, size);
    text->at += size;
    return 0;
}

#define ADD(text, literal) add_bytes(text, literal, sizeof literal - 1)

/* Write what a bytes object has; -1 with an exception where it is none. */
static int add_object(Text *text, PyObject *object)
{
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(object, &bytes, &size) < 0)
        return -1;
    return add_bytes(text, bytes, (size_t)size);
}

/* Seal what is written, and return it as a line. */
static PyObject *line_of(Text *text)
{
    size_t size = (size_t)(text->at - text->start);
    if (size > MAX_LINE) {
        PyErr_SetString(PyExc_ValueError, "too long for a line");
        return NULL;
    }
    if (need(text, SEALED) < 0)
        return NULL;
    text->at = seal_at(text->at, size);
    return PyBytes_FromStringAndSize(text->start, text->at - text->start);
}

static PyObject *sealed(PyObject *module, PyObject *body)
{
    char *bytes;
    Py_ssize_t size;
    (void)module;
    if (PyBytes_AsStringAndSize(body, &bytes, &size) < 0)
        return NULL;
    if (size > MAX_LINE) {
        PyErr_SetString(PyExc_ValueError, "too long for a line");
        return NULL;
    }
    PyObject *line = PyBytes_FromStringAndSize(NULL, size + SEALED);
    if (line == NULL)
        return NULL;
    char *at = PyBytes_AsString(line);
    memcpy(at, bytes, (size_t)size);
    seal_at(at + size, (size_t)size);
    return line;
}

/* -- what else an entry says ------------------------------------------------------------------ */

/* Text, whole numbers, true and dicts of these are written here, all else by the twin in Python. Each
 * `add_` returns 1 when it has written, 0 where it is for the twin, -1 with an exception. */

typedef struct {
    PyObject *details, *append; /* in Python */
    PyObject *acquire, *release; /* of a lock: their names */
} Twin;

static int add_string(Text *text, PyObject *string)
{
    Py_ssize_t size;
    const char *bytes = PyUnicode_AsUTF8AndSize(string, &size);
    if (bytes == NULL) {
        PyErr_Clear(); /* half of a surrogate pair: the encoder has an error for that */
        return 0;
    }
    for (Py_ssize_t i = 0; i < size; i++)
        if ((unsigned char)bytes[i] < ' ' || bytes[i] == '"' || bytes[i] == '\\')
            return 0;
    if (need(text, (size_t)size + 2) < 0)
        return -1;
    *text->at++ = '"';
    memcpy(text->at, bytes, (size_t)size);
    text->at += size;
    *text->at++ = '"';
    return 1;
}

static int add_dict(Text *, PyObject *);

static int add_value(Text *text, PyObject *value)
{
    if (PyUnicode_Check(value))
        return add_string(text, value);
    if (PyDict_CheckExact(value)) {
        if (ADD(text, "{") < 0)
            return -1;
        int added = add_dict(text, value);
        return added > 0 && ADD(text, "}") < 0 ? -1 : added;
    }
    if (value == Py_True)
        return ADD(text, "true") < 0 ? -1 : 1;
    if (!PyLong_CheckExact(value))
        return 0;
    if (need(text, MOST_DIGITS) < 0)
        return -1;
    char *at = number_at(text->at, "", 0, value);
    if (at == NULL) {
        PyErr_Clear(); /* more than 63 bits */
        return 0;
    }
    text->at = at;
    return 1;
}

static int add_dict(Text *text, PyObject *words)
{
    PyObject *name, *value;
    Py_ssize_t position = 0;
    int added = 1, first = 1;
    while (added > 0 && PyDict_Next(words, &position, &name, &value)) {
        if (!PyUnicode_Check(name))
            return 0;
        if (!first && ADD(text, ",") < 0)
            return -1;
        first = 0;
        added = add_string(text, name);
        if (added > 0 && ADD(text, ":") < 0)
            return -1;
        if (added > 0)
            added = add_value(text, value);
    }
    return added;
}

/* Write them behind a comma; what cannot be written here is left to the twin. -1 with an exception. */
static int add_words(PyObject *module, Text *text, PyObject *words)
{
    ptrdiff_t before = text->at - text->start;
    int added = PyDict_CheckExact(words) && PyDict_Size(words) ? ADD(text, ",") < 0 ? -1 : 1 : 0;
    if (added > 0)
        added = add_dict(text, words);
    if (added)
        return added;
    Twin *twin = PyModule_GetState(module);
    PyObject *found = PyObject_CallFunctionObjArgs(twin->details, words, NULL);
    text->at = text->start + before;
    added = found ? add_object(text, found) : -1;
    Py_XDECREF(found);
    return added;
}

/* -- entries ---------------------------------------------------------------------------------- */

static int add_entry(PyObject *module, Text *text, PyObject *const *args)
{
    enum { NUMBER, STARTED_AT, DURATION, REFERS, ROWS, SHARE, AMOUNT, WORDS, MORE };
    units share;
    char *at = text->at; /* ROOM is more than the numbers need */
    if ((at = NUMBER_AT(at, "{\"k\":\"e\",\"n\":", args[NUMBER])) == NULL ||
        (at = NUMBER_AT(at, ",\"t\":", args[STARTED_AT])) == NULL ||
        (at = NUMBER_AT(at, ",\"d\":", args[DURATION])) == NULL)
        return -1;
    text->at = at;
    if (add_object(text, args[REFERS]) < 0 || need(text, NUMBERS) < 0)
        return -1;
    at = text->at;
    if (args[ROWS] != Py_None && (at = NUMBER_AT(at, ",\"w\":", args[ROWS])) == NULL)
        return -1;
    if (args[AMOUNT] != Py_None) {
        if (from_int(args[SHARE], &share) < 0)
            return -1;
        memcpy(at, ",\"f\":", 5);
        if ((at = NUMBER_AT(digits_at(at + 5, share), ",\"m\":", args[AMOUNT])) == NULL)
            return -1;
    }
    text->at = at;
    if (args[WORDS] != Py_None && add_words(module, text, args[WORDS]) < 0)
        return -1;
    return add_object(text, args[MORE]);
}

static PyObject *entry(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    enum { ALL = 9 };
    Text text;
    if (count != ALL) {
        PyErr_Format(PyExc_TypeError, "entry() takes %d arguments (%zd given)", ALL, count);
        return NULL;
    }
    begin(&text);
    PyObject *line = add_entry(module, &text, args) < 0 ? NULL : line_of(&text);
    end(&text);
    return line;
}

/* -- the clock -------------------------------------------------------------------------------- */

enum { UNITS_PER_NS = 1000000 };

typedef struct {
    PyObject_HEAD
    units reading, first;
    long long last; /* nanoseconds */
    Py_ssize_t number;
    int begun;
} Clock;

static int move(Clock *clock, PyObject *now)
{
    long long at = PyLong_AsLongLong(now);
    if (at == -1 && PyErr_Occurred())
        return -1;
    if (!clock->begun || at > clock->last) {
        if (clock->number > 0 && clock->begun)
            clock->reading +=
                (units)(at - clock->last) * UNITS_PER_NS / (units)clock->number;
        clock->last = at;
        clock->begun = 1;
    }
    return 0;
}

static PyObject *clock_enter(PyObject *self, PyObject *now)
{
    Clock *clock = (Clock *)self;
    if (move(clock, now) < 0)
        return NULL;
    clock->number++;
    return as_int(clock->reading);
}

static PyObject *clock_leave(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    Clock *clock = (Clock *)self;
    units entered;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "leave() takes the time and what enter() gave");
        return NULL;
    }
    if (from_int(args[1], &entered) < 0)
        return NULL;
    if (entered < clock->first)
        return PyLong_FromLong(0);
    if (move(clock, args[0]) < 0)
        return NULL;
    if (clock->number > 0)
        clock->number--;
    return as_int(clock->reading - entered);
}

static PyObject *clock_reset(PyObject *self, PyObject *nothing)
{
    Clock *clock = (Clock *)self;
    (void)nothing;
    clock->number = 0;
    clock->first = ++clock->reading;
    Py_RETURN_NONE;
}

static PyObject *clock_number(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromSsize_t(((Clock *)self)->number);
}

static PyMethodDef clock_methods[] = {
    {"enter", clock_enter, METH_O, NULL},
    {"leave", (PyCFunction)(void (*)(void))clock_leave, METH_FASTCALL, NULL},
    {"reset", clock_reset, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef clock_properties[] = {
    {"number", clock_number, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot clock_slots[] = {
    {Py_tp_methods, clock_methods},
    {Py_tp_getset, clock_properties},
    {0, NULL},
};

static PyType_Spec clock_spec = {
    .name = "costinsights._quick.Clock",
    .basicsize = sizeof(Clock),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = clock_slots,
};

/* -- the segment ------------------------------------------------------------------------------ */

typedef struct {
    PyObject_HEAD
    PyObject *complete, *lock;
    long long made, written, size, most;
    int fd;
    char dirty;
} Segment;

/* Write a line whose definitions are in the file. What is amiss is the twin's, which tries again. */
static PyObject *append(PyObject *self, Twin *twin, PyObject *const *args)
{
    enum { LINE, KEY, DEFINITIONS };
    Segment *segment = (Segment *)self;
    char *line;
    Py_ssize_t size, written = -1;
    if (PyBytes_AsStringAndSize(args[LINE], &line, &size) < 0)
        return NULL;
    int complete = segment->complete ? PySet_Contains(segment->complete, args[KEY]) : 0;
    if (complete < 0)
        return NULL;
    if (complete && segment->fd >= 0) {
        int fd = segment->fd;
        Py_BEGIN_ALLOW_THREADS
        do
            written = write(fd, line, (size_t)size);
        while (written < 0 && errno == EINTR);
        Py_END_ALLOW_THREADS
    }
    if (written < 0)
        return PyObject_CallFunctionObjArgs(twin->append, self, args[LINE], args[KEY],
                                            args[DEFINITIONS], NULL);
    segment->made++;
    segment->size += written;
    if (written != size)
        return PyObject_CallMethod(self, "_fell_short", "nOO", written, args[LINE],
                                   args[DEFINITIONS]);
    segment->written++;
    segment->dirty = 1;
    if (segment->size >= segment->most)
        return PyObject_CallMethod(self, "_close", NULL);
    Py_RETURN_NONE;
}

static PyObject *segment_append(PyObject *self, PyTypeObject *owner, PyObject *const *args,
                                Py_ssize_t count, PyObject *names)
{
    enum { ALL = 3 };
    if (count != ALL || names != NULL) {
        PyErr_SetString(PyExc_TypeError, "append() takes a line, a key and definitions");
        return NULL;
    }
    PyObject *lock = ((Segment *)self)->lock;
    Twin *twin = PyType_GetModuleState(owner);
    PyObject *held = lock ? PyObject_CallMethodObjArgs(lock, twin->acquire, NULL) : NULL;
    if (held == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_AttributeError, "lock");
        return NULL;
    }
    Py_DECREF(held);
    Py_INCREF(lock);
    PyObject *done = append(self, twin, args);
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *free = PyObject_CallMethodObjArgs(lock, twin->release, NULL);
    Py_DECREF(lock);
    if (free == NULL) {
        Py_CLEAR(done);
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(trace);
        return NULL;
    }
    Py_DECREF(free);
    PyErr_Restore(type, value, trace);
    return done;
}

static int segment_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Segment *)self)->complete);
    Py_VISIT(((Segment *)self)->lock);
    return 0;
}

static int segment_clear(PyObject *self)
{
    Py_CLEAR(((Segment *)self)->complete);
    Py_CLEAR(((Segment *)self)->lock);
    return 0;
}

static void segment_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    PyObject_GC_UnTrack(self);
    segment_clear(self);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef segment_methods[] = {
    {"append", (PyCFunction)(void (*)(void))segment_append,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef segment_members[] = {
    {"made", T_LONGLONG, offsetof(Segment, made), 0, NULL},
    {"written", T_LONGLONG, offsetof(Segment, written), 0, NULL},
    {"dirty", T_BOOL, offsetof(Segment, dirty), 0, NULL},
    {"lock", T_OBJECT_EX, offsetof(Segment, lock), 0, NULL},
    {"_complete", T_OBJECT_EX, offsetof(Segment, complete), 0, NULL},
    {"_fd", T_INT, offsetof(Segment, fd), 0, NULL},
    {"_size", T_LONGLONG, offsetof(Segment, size), 0, NULL},
    {"_most", T_LONGLONG, offsetof(Segment, most), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot segment_slots[] = {
    {Py_tp_methods, segment_methods}, {Py_tp_members, segment_members},
    {Py_tp_traverse, segment_traverse}, {Py_tp_clear, segment_clear},
    {Py_tp_dealloc, segment_dealloc}, {0, NULL},
};

static PyType_Spec segment_spec = {
    .name = "costinsights._quick.Segment",
    .basicsize = sizeof(Segment),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = segment_slots,
};

/* -- sums ------------------------------------------------------------------------------------- */

enum { CALLS, REQUESTS, SENT, RECEIVED, RETRIES, ERRORS, STARTED_AT, DURATION, FIGURES };

typedef struct {
    PyObject_HEAD
    long long number, ended_at, figures[FIGURES];
} Sums;

static int sums_init(PyObject *self, PyObject *args, PyObject *names)
{
    static char *known[] = {"number", "started_at", NULL};
    Sums *sums = (Sums *)self;
    memset(sums->figures, 0, sizeof sums->figures);
    if (!PyArg_ParseTupleAndKeywords(args, names, "LL", known, &sums->number, &sums->ended_at))
        return -1;
    sums->figures[STARTED_AT] = sums->ended_at;
    return 0;
}

/* Add the figures that are given; -1 with an exception, and nothing added, where one is no number. */
static int add_figures(Sums *sums, PyObject *const *args)
{
    long long given[FIGURES];
    for (int i = 0; i < FIGURES; i++) {
        given[i] = PyLong_AsLongLong(args[i]);
        if (given[i] == -1 && PyErr_Occurred())
            return -1;
    }
    long long ended_at = given[STARTED_AT] + given[DURATION];
    for (int i = 0; i < FIGURES; i++)
        if (i != STARTED_AT)
            sums->figures[i] += given[i];
    if (given[STARTED_AT] < sums->figures[STARTED_AT])
        sums->figures[STARTED_AT] = given[STARTED_AT];
    if (ended_at > sums->ended_at)
        sums->ended_at = ended_at;
    return 0;
}

static PyObject *sums_add(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != FIGURES) {
        PyErr_Format(PyExc_TypeError, "add() takes %d arguments (%zd given)", FIGURES, count);
        return NULL;
    }
    if (add_figures((Sums *)self, args) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Write all of a line but its amount and what stands behind that. */
static int add_sums(Text *text, const Sums *sums, PyObject *const *args)
{
    enum { REFERS, BEFORE, METER, AFTER };
    const long long *figures = sums->figures;
    long long elapsed = sums->ended_at - figures[STARTED_AT];
    char *at = VALUE_AT(text->at, "{\"k\":\"e\",\"n\":", sums->number);
    at = VALUE_AT(at, ",\"t\":", figures[STARTED_AT]);
    at = VALUE_AT(at, ",\"d\":", figures[DURATION]);
    text->at = VALUE_AT(at, ",\"y\":", elapsed ? elapsed : 1);
    if (add_object(text, args[REFERS]) < 0 || add_object(text, args[BEFORE]) < 0 ||
        need(text, NUMBERS) < 0)
        return -1;
    text->at = VALUE_AT(text->at, "", figures[CALLS]);
    if (add_object(text, args[METER]) < 0 || need(text, NUMBERS) < 0)
        return -1;
    at = VALUE_AT(text->at, "", figures[REQUESTS]);
    at = VALUE_AT(at, ",\"sent_bytes\":", figures[SENT]);
    at = VALUE_AT(at, ",\"received_bytes\":", figures[RECEIVED]);
    at = VALUE_AT(at, ",\"retries\":", figures[RETRIES]);
    text->at = VALUE_AT(at, ",\"errors\":", figures[ERRORS]);
    return add_object(text, args[AFTER]) < 0 || need(text, NUMBERS) < 0 ? -1 : 0;
}

static int add_amount(Text *text, PyObject *amount, PyObject *more)
{
    if (amount != Py_None) {
        char *at = NUMBER_AT(text->at, ",\"m\":", amount);
        if (at == NULL)
            return -1;
        text->at = at;
    }
    return add_object(text, more);
}

static PyObject *sums_line(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    enum { AMOUNT = 4, MORE, ALL };
    Text text;
    if (count != ALL) {
        PyErr_Format(PyExc_TypeError, "line() takes %d arguments (%zd given)", ALL, count);
        return NULL;
    }
    begin(&text);
    int added = add_sums(&text, (Sums *)self, args);
    if (added == 0)
        added = add_amount(&text, args[AMOUNT], args[MORE]);
    PyObject *line = added < 0 ? NULL : line_of(&text);
    end(&text);
    return line;
}

/* Write the sums' line at a place of a file; 1 when it is there, 0 when it is longer than `most`, -1
 * with an exception: then the disk has refused. */
static int put(const Sums *sums, PyObject *const *args, long long amount)
{
    enum { FD, OFFSET, MOST, TURN, PARTS, MARK = 4, BETWEEN, WORDS };
    PyObject *parts[WORDS];
    Text text;
    ssize_t written;
    int done = -1;
    long fd = PyLong_AsLong(args[FD]);
    long long offset = PyLong_AsLongLong(args[OFFSET]), turn = PyLong_AsLongLong(args[TURN]);
    long long most = PyLong_AsLongLong(args[MOST]);
    if (PyErr_Occurred())
        return -1;
    for (int i = 0; i < WORDS; i++)
        if ((parts[i] = PyTuple_GetItem(args[PARTS], i)) == NULL)
            return -1;
    begin(&text);
    if (add_sums(&text, sums, parts) == 0) {
        text.at = VALUE_AT(text.at, ",\"m\":", amount);
        if (add_object(&text, parts[MARK]) == 0 && need(&text, NUMBERS) == 0) {
            text.at = VALUE_AT(text.at, "", sums->number);
            if (add_object(&text, parts[BETWEEN]) == 0 && need(&text, NUMBERS) == 0) {
                text.at = VALUE_AT(text.at, "", turn);
                done = text.at - text.start + SEALED <= most;
            }
        }
    }
    if (done > 0) { /* there is room for a seal where there was for numbers */
        text.at = seal_at(text.at, (size_t)(text.at - text.start));
        size_t size = (size_t)(text.at - text.start);
        Py_BEGIN_ALLOW_THREADS
        do
            written = pwrite((int)fd, text.start, size, (off_t)offset);
        while (written < 0 && errno == EINTR);
        Py_END_ALLOW_THREADS
        if (written != (ssize_t)size) {
            if (written >= 0)
                errno = ENOSPC;
            PyErr_SetFromErrno(PyExc_OSError);
            done = -1;
        }
    }
    end(&text);
    return done;
}

static PyObject *sums_keep(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    enum { EACH = 5, GIVEN, ALL = GIVEN + FIGURES, FROM = offsetof(Sums, number) };
    Sums sums = *(Sums *)self;
    long long amount, each;
    int done = 0;
    if (count != ALL) {
        PyErr_Format(PyExc_TypeError, "keep() takes %d arguments (%zd given)", ALL, count);
        return NULL;
    }
    each = PyLong_AsLongLong(args[EACH]);
    if (each == -1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return NULL;
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    if (add_figures(&sums, args + GIVEN) < 0)
        return NULL;
    if (!__builtin_mul_overflow(sums.figures[REQUESTS], each, &amount))
        done = put(&sums, args, amount);
    if (done < 0)
        return NULL;
    if (!done)
        Py_RETURN_NONE;
    memcpy((char *)self + FROM, (char *)&sums + FROM, sizeof sums - FROM);
    return PyLong_FromLongLong(amount);
}

static PyMethodDef sums_methods[] = {
    {"keep", (PyCFunction)(void (*)(void))sums_keep, METH_FASTCALL, NULL},
    {"add", (PyCFunction)(void (*)(void))sums_add, METH_FASTCALL, NULL},
    {"line", (PyCFunction)(void (*)(void))sums_line, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

#define FIGURE(name, which) \
    {name, T_LONGLONG, offsetof(Sums, figures) + which * sizeof(long long), 0, NULL}

static PyMemberDef sums_members[] = {
    {"number", T_LONGLONG, offsetof(Sums, number), 0, NULL},
    {"ended_at", T_LONGLONG, offsetof(Sums, ended_at), 0, NULL},
    FIGURE("calls", CALLS),
    FIGURE("requests", REQUESTS),
    FIGURE("sent", SENT),
    FIGURE("received", RECEIVED),
    FIGURE("retries", RETRIES),
    FIGURE("errors", ERRORS),
    FIGURE("started_at", STARTED_AT),
    FIGURE("duration", DURATION),
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot sums_slots[] = {
    {Py_tp_init, sums_init}, {Py_tp_methods, sums_methods}, {Py_tp_members, sums_members}, {0, NULL},
};

static PyType_Spec sums_spec = {
    .name = "costinsights._quick.Sums",
    .basicsize = sizeof(Sums),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = sums_slots,
};

/* -- the module ------------------------------------------------------------------------------- */

static PyMethodDef functions[] = {
    {"entry", (PyCFunction)(void (*)(void))entry, METH_FASTCALL, NULL},
    {"sealed", sealed, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

/* Return an attribute of a module, or of a class in it; NULL with an exception. */
static PyObject *found_in(const char *module, const char *name, const char *further)
{
    PyObject *found = PyImport_ImportModule(module);
    for (const char *const *at = (const char *[]){name, further, NULL}; found && *at; at++) {
        PyObject *inner = PyObject_GetAttrString(found, *at);
        Py_DECREF(found);
        found = inner;
    }
    return found;
}

static int add_type(PyObject *module, const char *name, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    int added = type ? PyModule_AddObjectRef(module, name, type) : -1;
    Py_XDECREF(type);
    return added;
}

static int fill(PyObject *module)
{
    Twin *twin = PyModule_GetState(module);
    make_crc_table();
    twin->details = found_in("costinsights.ledger.lines", "details", NULL);
    twin->append = found_in("costinsights.ledger.segment", "Segment", "append");
    twin->acquire = PyUnicode_InternFromString("acquire");
    twin->release = PyUnicode_InternFromString("release");
    if (!twin->details || !twin->append || !twin->acquire || !twin->release)
        return -1;
    return add_type(module, "Clock", &clock_spec) < 0 ||
                   add_type(module, "Segment", &segment_spec) < 0 ||
                   add_type(module, "Sums", &sums_spec) < 0
               ? -1
               : 0;
}

static int traverse(PyObject *module, visitproc visit, void *arg)
{
    Twin *twin = PyModule_GetState(module);
    if (twin) {
        Py_VISIT(twin->details);
        Py_VISIT(twin->append);
    }
    return 0;
}

static int clear(PyObject *module)
{
    Twin *twin = PyModule_GetState(module);
    if (twin) {
        Py_CLEAR(twin->details);
        Py_CLEAR(twin->append);
        Py_CLEAR(twin->acquire);
        Py_CLEAR(twin->release);
    }
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_quick",
    .m_size = sizeof(Twin),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
};

PyMODINIT_FUNC PyInit__quick(void)
{
    return PyModuleDef_Init(&definition);
}
