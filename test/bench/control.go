package main

func measureControl(l *lab, o options, t *table) {}
