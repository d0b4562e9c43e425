/* What each watched call does, some of it twice, in C: the clock of costinsights/clock.py and
 * the lines of costinsights/ledger/lines.py and seal.py. These say what it is, and run where this was
 * not built; tests hold each against its twin here.
 *
 * Why: while a driver waits for its server the processor's caches go cold, and then each byte code
 * and each object counts. A line is written here in a fifth of the time that Python takes.
 *
 * It keeps to the stable ABI of CPython 3.10, so that one wheel serves them all, and never lets go of
 * the GIL: no other thread and no signal handler sees a clock that is being moved.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#include <stdint.h>
#include <string.h>

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
    MAX_TEXT = 512, /* of what an entry refers to, and of what comes at its end */
    ROOM = 2 * MAX_TEXT + 512,
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
    char digits[40];
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

/* Write a name and a number; NULL with an exception where that is none. */
static char *number_at(char *at, const char *name, size_t size, PyObject *number)
{
    long long value = PyLong_AsLongLong(number);
    if (value == -1 && PyErr_Occurred())
        return NULL;
    memcpy(at, name, size);
    at += size;
    if (value < 0)
        *at++ = '-';
    return digits_at(at, value < 0 ? 0ULL - (unsigned long long)value : (unsigned long long)value);
}

#define NUMBER_AT(at, name, number) number_at(at, name, sizeof name - 1, number)

/* Write a text of at most MAX_TEXT bytes; NULL with an exception where it is none. */
static char *text_at(char *at, PyObject *text)
{
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(text, &bytes, &size) < 0)
        return NULL;
    if (size > MAX_TEXT) {
        PyErr_SetString(PyExc_ValueError, "too long for an entry");
        return NULL;
    }
    memcpy(at, bytes, (size_t)size);
    return at + size;
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

static PyObject *entry(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    enum { NUMBER, STARTED_AT, DURATION, REFERS, ROWS, SHARE, AMOUNT, MORE, ALL };
    char room[ROOM], *at = room;
    units share;
    (void)module;
    if (count != ALL) {
        PyErr_Format(PyExc_TypeError, "entry() takes %d arguments (%zd given)", ALL, count);
        return NULL;
    }
    if ((at = NUMBER_AT(at, "{\"k\":\"e\",\"n\":", args[NUMBER])) == NULL ||
        (at = NUMBER_AT(at, ",\"t\":", args[STARTED_AT])) == NULL ||
        (at = NUMBER_AT(at, ",\"d\":", args[DURATION])) == NULL ||
        (at = text_at(at, args[REFERS])) == NULL ||
        (at = NUMBER_AT(at, ",\"w\":", args[ROWS])) == NULL)
        return NULL;
    if (args[AMOUNT] != Py_None) {
        if (from_int(args[SHARE], &share) < 0)
            return NULL;
        memcpy(at, ",\"f\":", 5);
        if ((at = NUMBER_AT(digits_at(at + 5, share), ",\"m\":", args[AMOUNT])) == NULL)
            return NULL;
    }
    if ((at = text_at(at, args[MORE])) == NULL)
        return NULL;
    at = seal_at(at, (size_t)(at - room));
    return PyBytes_FromStringAndSize(room, at - room);
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

/* -- the module ------------------------------------------------------------------------------- */

static PyMethodDef functions[] = {
    {"entry", (PyCFunction)(void (*)(void))entry, METH_FASTCALL, NULL},
    {"sealed", sealed, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module)
{
    make_crc_table();
    PyObject *clock = PyType_FromSpec(&clock_spec);
    if (clock == NULL)
        return -1;
    int added = PyModule_AddObjectRef(module, "Clock", clock);
    Py_DECREF(clock);
    return added;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_quick", .m_methods = functions, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__quick(void)
{
    return PyModuleDef_Init(&definition);
}
