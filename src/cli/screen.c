/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the terminal was is kept when the screen is entered, and put back by screen_leave(), which a
 * handler calls on signals that crash. Those that ask to end only set a flag; they are blocked but
 * while a key is waited for, so that none comes between a look at the flag and the wait. Ctrl-Z
 * leaves the screen, stops, and comes back.
 */
#include "cli/screen.h"

#include "base/files.h"
#include "base/time.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define ENTER "\033[?1049h\033[?25l\033[?7l"
#define LEAVE "\033[?2026l\033[0m\033[?7h\033[?25h\033[?1049l"
#define ESCAPE 27

static struct termios before;
static volatile sig_atomic_t entered, asked, resized, stop_asked;

static const int endings[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
static const int crashes[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL};

/* Without stdio: it is also called where the program crashes. */
static void say(const char *text)
{
    struct err ignored;

    (void)!file_write_all(STDOUT_FILENO, text, strlen(text), &ignored);
}

void screen_leave(void)
{
    if (!entered)
        return;
    entered = 0;
    say(LEAVE);
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

static void on_signal(int signo)
{
    switch (signo) {
    case SIGWINCH:
        resized = 1;
        break;
    case SIGTSTP:
        stop_asked = 1;
        break;
    default:
        asked = signo;
    }
}

static void on_crash(int signo)
{
    screen_leave();
    (void)signal(signo, SIG_DFL);
    (void)raise(signo);
}

static void handle(const int *signos, size_t n, void (*fn)(int), bool reset)
{
    struct sigaction action = {.sa_handler = fn, .sa_flags = reset ? (int)SA_RESETHAND : 0};

    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < n; i++)
        (void)sigaction(signos[i], &action, NULL);
}

static void block(sigset_t *ret_before)
{
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_LEN(endings); i++)
        sigaddset(&set, endings[i]);
    sigaddset(&set, SIGWINCH);
    sigaddset(&set, SIGTSTP);
    (void)sigprocmask(SIG_BLOCK, &set, ret_before);
}

static sigset_t while_waiting;

static void raw(void)
{
    struct termios t = before;

    t.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    t.c_cc[VMIN] = 0;
    t.c_cc[VTIME] = 0;
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &t);
    say(ENTER);
    entered = 1;
}

int screen_enter(struct err *e)
{
    static const int others[] = {SIGWINCH, SIGTSTP};

    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || tcgetattr(STDIN_FILENO, &before))
        return FAIL(e, FAILED_PRECONDITION, "stdin and stdout are no terminal");
    (void)setvbuf(stdin, NULL, _IONBF, 0);
    handle(endings, ARRAY_LEN(endings), on_signal, false);
    handle(others, ARRAY_LEN(others), on_signal, false);
    handle(crashes, ARRAY_LEN(crashes), on_crash, true);
    block(&while_waiting);
    raw();
    return 0;
}

int screen_signal(void)
{
    return asked;
}

/* Keys that move the cursor come as three characters. */
static int read_key(void)
{
    int c = fgetc(stdin);

    if (c == EOF) {
        if (!feof(stdin) && ferror(stdin) && errno != EINTR && errno != EAGAIN)
            return SCREEN_END;
        clearerr(stdin);
        return SCREEN_NONE;
    }
    if (c != ESCAPE)
        return c;
    if (fgetc(stdin) != '[') {
        clearerr(stdin);
        return SCREEN_NONE;
    }
    c = fgetc(stdin);
    clearerr(stdin);
    return c == 'A' ? SCREEN_UP : c == 'B' ? SCREEN_DOWN : SCREEN_NONE;
}

static void pause_program(void)
{
    stop_asked = 0;
    screen_leave();
    (void)raise(SIGSTOP);
    raw();
}

int screen_key(int64_t until_ns)
{
    for (;;) {
        int64_t left_ns = MAX(until_ns - time_mono_ns(), INT64_C(0));
        struct timespec ts = {.tv_sec = left_ns / NS_PER_S, .tv_nsec = left_ns % NS_PER_S};
        struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
        int n = ppoll(&p, 1, &ts, &while_waiting);

        if (asked || (n > 0 && p.revents & (POLLHUP | POLLERR) && !(p.revents & POLLIN)))
            return SCREEN_END;
        if (stop_asked)
            pause_program();
        if (n > 0)
            return read_key();
        if (n == 0 || resized) {
            resized = 0;
            return SCREEN_NONE;
        }
    }
}

void screen_size(size_t *ret_columns, size_t *ret_lines)
{
    struct winsize size;

    *ret_columns = 80;
    *ret_lines = 24;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || !size.ws_col || !size.ws_row)
        return;
    *ret_columns = MAX(size.ws_col, (unsigned short)20);
    *ret_lines = MAX(size.ws_row, (unsigned short)8);
}
