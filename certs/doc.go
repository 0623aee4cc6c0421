// Package certs keeps the certificates of public hosts.
//
// Its duty: a TLS listener asks for the certificate of a host name and gets the
// present one, also after the files on disk have changed.
//
// Its limits: it knows no mapping and opens no listener.
package certs
