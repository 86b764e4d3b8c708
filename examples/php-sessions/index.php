<?php
// Counts the visits of each visitor in a session. Where sessions are kept is PHP's setting, not the page's.
header('Content-Type: text/plain');
if (!@session_start()) {
    // The cache server is down. Without this PHP would begin a new session, and its cookie would end the old one.
    header_remove('Set-Cookie');
    http_response_code(503);
    exit("Come back in a moment.\n");
}
$_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
$_SESSION['first'] ??= date(DATE_ATOM);
echo "Your visit number {$_SESSION['visits']}; the first was at {$_SESSION['first']}.\n";
